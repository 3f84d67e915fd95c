"""What the rooms share: inputs, scores, gradients, rivals, and the adapters to the two hosts."""
