"""Distillation against its formulas."""

import math

import pytest
import torch
from torch import nn

from captum_alignment.training import Distillation, distillation_loss, soft_labels
from tests.nets import assert_unchanged, cnn, images, mlp, snapshot


def test_loss_is_the_cross_entropy_at_its_temperature():
    scores, probabilities = torch.randn(5, 4).double() * 9, torch.rand(5, 4).double().softmax(1)
    z = (scores / 7).exp()
    log_softmax = torch.log(z / z.sum(1, keepdim=True))
    torch.testing.assert_close(
        distillation_loss(scores, probabilities, temperature=7), -(probabilities * log_softmax).sum(1)
    )
    classes = torch.tensor([0, 1, 2, 3, 0])
    torch.testing.assert_close(distillation_loss(scores, classes, temperature=7), -log_softmax[range(5), classes])
    signed = torch.randn(5, 1).double()
    torch.testing.assert_close(
        distillation_loss(signed, [1] * 5, temperature=2), torch.log1p((-signed.squeeze(1) / 2).exp())
    )
    assert distillation_loss(scores.bfloat16(), classes, temperature=7).dtype == torch.float32


def test_a_masked_class_adds_nothing_to_the_loss():
    scores, p = torch.randn(5, 3, dtype=torch.float64), torch.rand(5, 3, dtype=torch.float64).softmax(1)
    masked, never = (nn.functional.pad(t, (1, 0), value=value) for t, value in ((scores, -math.inf), (p, 0.0)))
    plain = distillation_loss(scores, p, temperature=2)
    torch.testing.assert_close(plain, -(p * (scores / 2).log_softmax(1)).sum(1))
    torch.testing.assert_close(distillation_loss(masked, never, temperature=2), plain)


def test_soft_labels_come_from_the_teacher_in_eval_mode():
    teacher, x = cnn(), images()
    expected = (teacher(x) / 20).softmax(1).detach()
    teacher.train()
    before = snapshot(teacher)
    found = soft_labels(teacher, x, temperature=20)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
    assert_unchanged(teacher, before)


def test_the_student_learns_the_teacher():
    teacher, student = mlp(), mlp()
    x = torch.rand(200, 6, dtype=torch.float64)
    loss = Distillation(teacher, temperature=5.0)
    least = distillation_loss(teacher(x), soft_labels(teacher, x, temperature=5.0), temperature=5.0).mean().item()
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    excess = []
    for _ in range(100):
        optimizer.zero_grad()
        value = loss(student(x), x)
        value.backward()
        optimizer.step()
        excess.append(value.item() - least)
    assert 0 <= excess[-1] < 0.05 * excess[0]
    assert all(p.grad is None for p in teacher.parameters())


def test_student_and_teacher_may_have_their_own_temperatures():
    teacher, x = mlp(), torch.rand(5, 6, dtype=torch.float64)
    scores = torch.randn(5, 4).double()
    found = Distillation(teacher, temperature=5.0, student_temperature=2.0)(scores, x)
    expected = distillation_loss(scores, soft_labels(teacher, x, temperature=5.0), temperature=2.0).mean()
    torch.testing.assert_close(found, expected)


def test_the_teacher_is_no_submodule():
    class Student(nn.Module):
        def __init__(self):
            super().__init__()
            self.loss = Distillation(mlp(), temperature=2.0)

    assert list(Student().parameters()) == []


def test_wrong_arguments_are_named():
    scores = torch.zeros(3, 4)
    with pytest.raises(ValueError, match="temperature: got 0, expected a positive number"):
        distillation_loss(scores, 0, temperature=0)
    with pytest.raises(ValueError, match="student_temperature: got -1"):
        Distillation(mlp(), temperature=1.0, student_temperature=-1.0)
    with pytest.raises(ValueError, match=r"target: got probabilities of shape \(3, 2\)"):
        distillation_loss(scores, torch.zeros(3, 2), temperature=1.0)
    with pytest.raises(ValueError, match="target: got class 4"):
        distillation_loss(scores, 4, temperature=1.0)
    with pytest.raises(ValueError, match=r"target: row 1 is \[-0.5, 1.5, 0.0, 0.0\], expected probabilities"):
        distillation_loss(scores, torch.tensor([[0.0, 0, 0, 1], [-0.5, 1.5, 0, 0], [1, 0, 0, 0]]), temperature=1.0)
