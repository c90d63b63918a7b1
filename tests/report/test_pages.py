"""What pages have in common: names that may be long, who votes, and what the report says where labels are wrong."""

from __future__ import annotations

import re

from round_records import member, model_record

from seedling.report.pages import breakable, environment, vote, with_code


def test_a_long_name_may_break_and_is_escaped() -> None:
    """After what joins its parts, and every twelve letters; what it says stays, and a tag in it is none."""
    assert str(breakable("card_payment")) == "card_<wbr>payment"
    assert str(breakable("a" * 30)) == "<wbr>".join(["a" * 12, "a" * 12, "a" * 6])
    for name in ("plain", "with blanks/and-signs", "_", "naïve 猫", "a & <b>"):
        assert re.sub("<wbr>", "", str(breakable(name))) == name.replace("&", "&amp;").replace("<", "&lt;").replace(
            ">", "&gt;"
        )
    joined = environment().from_string('{{ names|map("name")|join(", ") }}').render(names=["a_b", "<i>"])
    assert joined == "a_<wbr>b, &lt;i&gt;"


def test_a_learner_that_votes_twice_is_named_once() -> None:
    """Alone, two of a kind, and two kinds."""
    members = [member(learner) for learner in ("svm", "logistic_regression", "svm")]
    assert vote(model_record(*members[:1])) == "svm"
    assert vote(model_record(*members[::2])) == "a vote of 2 × svm"
    assert vote(model_record(*members)) == "a vote of 2 × svm and logistic regression"


def test_the_parts_between_backticks_are_code() -> None:
    """All else is escaped."""
    assert with_code("`a <b>` & c, `d`") == "<code>a &lt;b&gt;</code> &amp; c, <code>d</code>"
    assert with_code("plain") == "plain"
