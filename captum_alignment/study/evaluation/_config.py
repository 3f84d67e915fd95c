"""The choices of an evaluation, without anything that is slow to import."""

#: The attacks a study can name one by one; `make_attacks` makes them.
ATTACKS = ("gradient", "deepfool", "ddn", "carlini-wagner")
#: Portfolios of `captum_alignment.adversarial_distance`, named alone.
PORTFOLIOS = ("paper", "fast", "thorough")
