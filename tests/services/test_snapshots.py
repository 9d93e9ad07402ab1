"""The slices that an emailer's ledger is parted into: small enough for several workers."""

import pytest

from mcs.services.snapshots import slice_size
from tests.services.conftest import Scene


@pytest.mark.parametrize(
    ("recipients", "size", "slices"),
    [
        (0, 250, 0),
        (1, 250, 1),
        (251, 250, 2),
        (2_000, 250, 8),
        (2_001, 251, 8),
        (8_000, 1_000, 8),
        (16_000, 2_000, 8),
        (16_001, 2_000, 9),
        (1_000_000, 2_000, 500),
    ],
)
def test_workers_share_all_but_the_smallest(recipients: int, size: int, slices: int) -> None:
    assert slice_size(recipients) == size
    assert -(-recipients // size) == slices


def test_three_workers_share_six_hundred_people(scene: Scene) -> None:
    addresses = scene.add_many(600)
    scene.start()
    theirs = [[one.email for one in due] for _, due in (scene.claim() for _ in range(3))]
    assert [len(each) for each in theirs] == [250, 250, 100]
    assert [one for each in theirs for one in each] == addresses
    assert scene.counted() == {"pending": 600}
