"""Texts of the reasons for which collection keeps content: there is one for each code. Wording is tested here alone."""

import pytest

from registry.cluster.placement.collection_reasons import Code, Reason

MEMBER = {"instance": "1" * 32, "name": "eu-2", "site": "eu"}
DETAIL = {
    Code.GRACE_PERIOD: {"remaining_s": 7200.0},
    Code.REFERENCED_ELSEWHERE: MEMBER,
    Code.MANIFEST_UNREADABLE: {"repository": "app", "digest": "sha256:00"},
    Code.DOCUMENT_NOT_UNDERSTOOD: {"document": "repository/app"},
    Code.MEMBER_SILENT: MEMBER | {"address": "http://eu-2"},
    Code.MEMBER_UNREACHABLE: MEMBER | {"address": "http://eu-2", "error": "connection refused"},
    Code.MEMBER_BLOCKED: MEMBER | {"cause": "a manifest is missing"},
}


@pytest.mark.parametrize("code", Code)
def test_describe_names_every_detail_of_a_reason(code):
    detail = DETAIL.get(code, {})
    text = Reason(code, detail).describe("http://here:5000")
    assert text != code and "{" not in text
    assert all(value in text for name, value in detail.items() if name != "remaining_s")


def test_describe_names_the_command_that_helps_with_its_address():
    text = Reason(Code.MEMBER_SILENT, DETAIL[Code.MEMBER_SILENT]).describe("http://here:5000")
    assert "concord forget http://here:5000 111111111111" in text


@pytest.mark.parametrize(
    ("remaining_s", "words"), [(1.0, "1 seconds"), (120.0, "2 minutes"), (7300.0, "2 hours"), (3 * 86400.0, "3 days")]
)
def test_describe_shows_a_duration_in_its_largest_unit(remaining_s, words):
    assert f" {words} " in Reason(Code.GRACE_PERIOD, {"remaining_s": remaining_s}).describe()


@pytest.mark.parametrize("reason", [Reason("of_a_later_version"), Reason(Code.MEMBER_SILENT, {"instance": "1" * 32})])
def test_describe_of_what_another_version_answers_is_the_code(reason):
    assert reason.describe() == reason.code
