import pytest

from registry.errors import DiskBudgetUsed
from registry.storage.disk_budget import DiskBudget
from registry.storage.shared_usage import SharedUsage
from registry.storage.upload_homes import ALONE
from registry.storage.upload_places import UploadPlaces


@pytest.fixture
def usage():
    return SharedUsage()


def test_uploads_under_way_count_with_the_content(usage):
    budget, places = DiskBudget(100, usage), UploadPlaces(10, usage.of(ALONE))
    budget.on_blob_added(60)
    budget.check_room()
    places.use("u", 41, 0.0)
    with pytest.raises(DiskBudgetUsed):
        budget.check_room()
    places.drop("u")
    budget.check_room()


def test_content_of_others_is_fetched_beyond_the_budget_until_eviction_finds_too_little(usage):
    budget = DiskBudget(100, usage)
    budget.on_blob_added(90)
    assert budget.has_room(20) and not budget.has_room(101)
    budget.is_exhausted = True
    assert budget.has_room(10) and not budget.has_room(20)


def test_a_budget_of_nothing_bounds_nothing(usage):
    budget = DiskBudget(0, usage)
    budget.on_blob_added(10**15)
    budget.check_room()
    assert budget.has_room(10**15)
