"""Volumes of sampled solids against their closed formulas."""

from math import gamma, pi

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oarlock.phantom.solids import Points, Section, Solid, bubbles, ellipsoid, loft, reflected, slab, tube, union

RADIUS = st.floats(3.0, 9.0)


def lattice(solid: Solid, step_mm: float) -> Points:
    """Points all over a box that is a little larger than the solid's own; the start is off the lattice of the solid's numbers."""
    x, y, z = (np.arange(low - 1.37, high + 1.41, step_mm) for low, high in zip(solid.low, solid.high, strict=True))
    return x[None, None, :], y[None, :, None], z[:, None, None]


def volume(solid: Solid, step_mm: float = 0.25) -> float:
    return float(solid.holds(lattice(solid, step_mm)).sum()) * step_mm**3


@settings(max_examples=12, deadline=None)
@given(RADIUS, RADIUS, RADIUS)
def test_an_ellipsoid_has_the_volume_of_the_formula(a: float, b: float, c: float) -> None:
    assert volume(ellipsoid((1, -2, 3), (a, b, c))) == pytest.approx(4 / 3 * pi * a * b * c, rel=0.01)


@settings(max_examples=8, deadline=None)
@given(RADIUS, st.floats(5.0, 20.0))
def test_a_straight_tube_is_a_cylinder_with_two_half_spheres(radius: float, length: float) -> None:
    solid = tube([(0, 0, 0), (0, 0.6 * length, 0.8 * length)], radius)
    assert volume(solid) == pytest.approx(pi * radius**2 * length + 4 / 3 * pi * radius**3, rel=0.01)


def test_a_tube_that_widens_is_as_wide_as_said_at_its_ends() -> None:
    solid = tube([(0, 0, 0), (40, 0, 0)], [2, 6])
    for x, radius in ((0.0, 2.0), (20.0, 4.0), (40.0, 6.0)):
        at, inside, outside = np.array([x]), np.array([radius - 0.01]), np.array([radius + 0.01])
        assert solid.holds((at, inside, np.zeros(1))).all()
        assert not solid.holds((at, outside, np.zeros(1))).any()


def test_stretching_a_tube_stretches_its_volume() -> None:
    ball = 4 / 3 * pi * 4**3
    assert volume(tube([(3, 1, 2), (3, 1, 2)], 4, stretch=(1, 1, 2.5))) == pytest.approx(2.5 * ball, rel=0.01)


def test_bubbles_fill_the_share_of_a_solid_that_their_balls_take() -> None:
    box = slab((-20, -20, -20), (20, 20, 20))
    share = volume(bubbles(box, apart_mm=5, radius_mm=2)) / volume(box)
    assert share == pytest.approx(4 / 3 * pi * 2**3 / 5**3, rel=0.02)


@pytest.mark.parametrize("power", [1.5, 2.0, 3.0])
def test_a_straight_loft_has_the_area_of_a_superellipse(power: float) -> None:
    a, b, height = 9.0, 6.0, 20.0
    sections = [Section(z, 2, -1, a, -1 - b, -1 + b, power, power) for z in (0.0, height)]
    area = 4 * a * b * gamma(1 + 1 / power) ** 2 / gamma(1 + 2 / power)
    assert volume(loft(sections)) == pytest.approx(area * height, rel=0.01)


def test_the_two_halves_of_a_section_are_as_deep_as_said() -> None:
    solid = loft([Section(z, 0, 0, 5, -12, 4) for z in (0.0, 30.0)])
    assert volume(solid) == pytest.approx(pi / 2 * 5 * (12 + 4) * 30, rel=0.01)


def test_a_grown_loft_is_larger_on_all_sides() -> None:
    sections = [Section(z, 0, 0, 5, -6, 7) for z in (0.0, 30.0)]
    grown = loft(sections, grown_mm=2)
    assert grown.low.tolist() == pytest.approx([-7, -8, -2])
    assert grown.high.tolist() == pytest.approx([7, 9, 32])


def test_a_loft_shrunk_to_nothing_holds_no_point() -> None:
    sections = [Section(0, 0, 0, 2, -2, 2), Section(10, 0, 0, 9, -9, 9), Section(30, 0, 0, 9, -9, 9)]
    shrunk = loft(sections, grown_mm=-3)
    z = np.array([3.5])
    assert not shrunk.holds((np.array([0.5]), np.array([0.5]), z)).any()
    assert shrunk.holds((np.zeros(1), np.zeros(1), np.array([20.0]))).all()


def test_set_operations_add_up() -> None:
    a, b = ellipsoid((0, 0, 0), (6, 5, 4)), ellipsoid((4, 1, 0), (5, 5, 5))
    both, either = volume(a & b), volume(a | b)
    assert both > 0
    assert both + either == pytest.approx(volume(a) + volume(b), rel=0.01)
    assert volume(a - b) == pytest.approx(volume(a) - both, rel=0.01)
    assert volume(union([a, b])) == pytest.approx(either)


def test_a_slab_holds_its_box() -> None:
    assert volume(slab((0, 0, 0), (4, 5, 6))) == pytest.approx(120, rel=0.05)


def test_a_mirror_image_lies_on_the_other_side() -> None:
    solid = reflected(ellipsoid((10, 3, 2), (4, 3, 2)))
    assert solid.low.tolist() == [-14, 0, 0]
    assert solid.holds((np.array([-13.9]), np.array([3.0]), np.array([2.0]))).all()
    assert not solid.holds((np.array([10.0]), np.array([3.0]), np.array([2.0]))).any()
