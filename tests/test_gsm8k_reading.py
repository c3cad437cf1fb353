"""Claims about the arithmetic of calculator annotations, and about the parsing of answers."""

from __future__ import annotations

import contextlib
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.tasks.gsm8k.arithmetic import (
    MAX_EXPRESSION,
    InvalidExpression,
    agrees,
    evaluate,
    format_number,
    read_number,
)
from posttrain.tasks.gsm8k.reading import (
    execute,
    flexible_answer,
    gold_answer,
    read_steps,
    strict_answer,
    strip,
)

MAY = """Natalia sold 48/2 = <<48/2=24>>24 clips in May.
Natalia sold 48+24 = <<48+24=72>>72 clips altogether in April and May.
#### 72"""

NUMBERS = st.integers(0, 999).map(lambda n: (str(n), Fraction(n)))
DECIMALS = st.integers(0, 9999).map(lambda n: (f"{n / 100:.2f}", Fraction(n, 100)))


def combined(
    children: st.SearchStrategy[tuple[str, Fraction]],
) -> st.SearchStrategy[tuple[str, Fraction]]:
    def combine(
        sign: str, a: tuple[str, Fraction], b: tuple[str, Fraction]
    ) -> tuple[str, Fraction]:
        value = {"+": a[1] + b[1], "-": a[1] - b[1], "*": a[1] * b[1]}
        return f"({a[0]}){sign} ({b[0]})", value[sign]

    return st.builds(combine, st.sampled_from("+-*"), children, children)


@given(st.recursive(NUMBERS | DECIMALS, combined, max_leaves=5))
def test_an_expression_has_the_value_that_it_was_built_with(built: tuple[str, Fraction]) -> None:
    text, value = built
    if len(text) <= MAX_EXPRESSION:
        assert evaluate(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100-50-30-15", 5),
        ("2+3*4", 14),
        ("(2+3)*4", 20),
        ("12/4/3", 1),
        ("1/3*3", 1),
        (".20*85", 17),
        ("5.*2", 10),
        ("-5+8", 3),
        ("+8", 8),
        ("2*-3", -6),
    ],
)
def test_products_bind_before_sums_and_both_from_the_left(text: str, value: int) -> None:
    assert evaluate(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "2+", "(2", "2)", "2 3", "1/0", "5//2", "2**9", "two", "1e5", "__import__('os')", "9" * 40, "(" * 200],
)  # fmt: skip
def test_what_is_no_arithmetic_is_refused(text: str) -> None:
    with pytest.raises(InvalidExpression):
        evaluate(text)


@given(st.text(max_size=150))
def test_any_text_is_evaluated_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidExpression):
        evaluate(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1,200", 1200), ("$3.50", Fraction(7, 2)), ("72.", 72), ("-4", -4), (".5", Fraction(1, 2))],
)
def test_a_number_may_have_a_dollar_sign_commas_and_a_full_stop(text: str, value: Fraction) -> None:
    assert read_number(text) == value


@pytest.mark.parametrize(
    "text", ["", ".", "-", "$", "1$2", "--5", "- 5", "NaN", "inf", "1.2.3", "seven", "9" * 5000]
)
def test_what_is_no_number_is_none(text: str) -> None:
    assert read_number(text) is None


@given(st.integers(-(10**9), 10**9), st.integers(0, 4))
def test_a_decimal_is_written_so_that_it_is_read_again(digits: int, places: int) -> None:
    value = Fraction(digits, 10**places)
    assert read_number(format_number(value)) == value


def test_a_result_agrees_exactly_or_rounded_to_its_last_digit_and_never_more_than_one_percent_off() -> (
    None
):
    third = Fraction(100, 3)
    assert agrees("33.33", third) and agrees("33.3", third) and agrees("33", third)
    assert not agrees("33.34", third) and not agrees("30", third)
    assert not agrees("3", Fraction(5, 2)) and not agrees("2", Fraction(5, 2))
    assert agrees("36.00", Fraction(36)) and not agrees("3/4", Fraction(3, 4))


# ------------------------------------------------------------------------------ answers


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        (MAY, "72", "72"),
        ("so 5.\n#### 1,200", "1,200", "1,200"),
        ("#### -3", "-3", "-3"),
        ("#### 72.", "72.", "72."),
        ("#### 5\n#### 6", "5", "6"),
        ("#### $72", None, "$72"),
        ("####72", None, "72"),
        ("the answer is 7", None, "7"),
        ("the answer is 7 of them.", None, "7"),
        ("#### seven", None, None),
        ("and so on ...", None, None),
        ("", None, None),
        ("#### 72 clips", "72", "72"),
        ("#### 72%", "72", "72"),
        ("#### -$72", None, "-$72"),
        ("#### −1234", "-1234", "-1234"),
        ("it lost –5", None, "-5"),
        ("it lost −€5", None, "-€5"),
        ("#### －７２", "-７２", "-７２"),
        ("#### 1\u202f234", "1\u202f234", "1\u202f234"),
        ("so 6 ...", None, "6"),
        ("so 6...", None, "6."),
    ],
)
def test_strict_is_the_first_number_behind_the_mark_and_flexible_the_last_of_all(
    text: str, strict: str | None, flexible: str | None
) -> None:
    assert (strict_answer(text), flexible_answer(text)) == (strict, flexible)


# fmt: off
NO_NUMBERS = ["1/2", "2 1/2", "2½", "2 ½", "10:30", "1 234", "12\xa034", "1,5", "1,2,3", "1.234,50", "1e3", "2E-3", "5-6",
              "5–6", "5 - 6", "48 + 24", "3 x 4", "10^3", "10²", "1'234", "1_000", "1.2.3", "9" * 40]
# fmt: on


@pytest.mark.parametrize("written", NO_NUMBERS)
def test_no_number_is_read_by_half(written: str) -> None:
    assert read_number(written) is None
    assert strict_answer(f"#### {written}") is None
    assert strict_answer(f"#### {written} hours\n#### 7") is None
    assert flexible_answer(f"it is {written} hours") is None
    assert gold_answer(f"so\n#### {written}") is None


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("72", 72),
        ("-7", -7),
        ("109,200,000", 109_200_000),
        ("1,00,000", 100_000),
        ("72.", 72),
        (".5", Fraction(1, 2)),
        ("−7", -7),
        ("‒7", -7),
        ("–7", -7),
        ("－7", -7),
        ("７２", 72),
        ("1\xa0234", 1234),
        ("1\u202f234.5", Fraction(2469, 2)),
        ("$29.00", 29),
        ("-€29", -29),
        ("29 €", None),
        ("72 clips", None),
        ("25%", None),
        ("+5", None),
        ("5 million", None),
        ("5 #### 6", None),
        ("(5)", None),
        ("—5", None),
        ("72\u200b", None),
    ],
)
def test_a_gold_answer_is_wholly_a_number_or_none(written: str, value: Fraction | None) -> None:
    assert gold_answer(f"#### 3\nso\n#### {written}") == value
    assert gold_answer(f"so\n#### {written}\n \n") == value
    assert gold_answer(f"#### {written}\nso") is None


def test_the_last_number_is_read_after_expressions_lists_and_marks() -> None:
    for text in (
        "48 + 24 = 72",
        "1, 2, 72",
        "<<48+24=72>>72",
        "of 5 - so **72**",
        "from 1/2 to 72",
    ):
        assert flexible_answer(text) == "72"


def test_steps_are_annotations_or_without_them_the_equations_of_the_text() -> None:
    for steps in (read_steps(MAY, "keep"), read_steps(strip(MAY), "strip")):
        assert [(step.expression, step.stated, step.right) for step in steps] == [
            ("48/2", "24", True),
            ("48+24", "72", True),
        ]
    assert read_steps(strip(MAY), "keep") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("she earned 0.2 x 50 = $10.", [("0.2*50", "10")]),
        ("so she pays $1,200 - $200 = $1,000 now", [("1200-200", "1000")]),
        ("(3 + 4) * 2 = 14", [("(3+4)*2", "14")]),
        ("a tip of .20*85 = 17", [(".20*85", "17")]),
        ("6 * 4 + 2 = 24 + 2 = 26", [("24+2", "26")]),
        ("2 hours * 3 = 6, and 6x+12 = 24, so 20% of 50 = 10", []),
        ("there were 10, 75 - 10 = 65 more", [("75-10", "65")]),
        ("so 120 – 80 − 15 = 25", [("120-80-15", "25")]),
        ("100 ÷ 20 + 5 = 10", [("100/20+5", "10")]),
        ("350 000 x 5/100 = 17500", [("350000*5/100", "17500")]),
        ("8 * 1 1/2 = 12, then 3 / 4 * 2 = 1 1/2 and 600 x 30 = 18 000, 1,5*2 = 3", []),
    ],
)
def test_an_equation_counts_if_its_left_side_can_be_read(
    text: str, expected: list[tuple[str, str]]
) -> None:
    assert [(step.expression, step.stated) for step in read_steps(text, "strip")] == expected


@pytest.mark.parametrize(
    "note", ["<<48/2>>", "<<=>>", "<<48/2=24", "<<__import__('os')=1>>", "<<1/0=0>>", "<<2=2=2>>"]
)
def test_an_annotation_that_is_no_calculation_is_a_step_that_is_not_right(note: str) -> None:
    (step,) = read_steps(f"so {note} it is", "keep")
    assert not step.right and step.error


# ------------------------------------------------------------------------------ execute


def test_the_calculator_corrects_a_result_and_what_uses_it() -> None:
    slip = "half is <<48/2=25>>25\nin all <<48+25=73>>73\n#### 73"
    assert execute(slip) == "half is <<48/2=24>>24\nin all <<48+24=72>>72\n#### 72"


def test_the_calculator_leaves_what_is_right_rounded_or_no_arithmetic() -> None:
    assert execute("<<5−12=−7>>−7\n#### −7") == "<<5−12=−7>>−7\n#### −7"
    assert execute("<<5−12=−8>>−8\n#### −8") == "<<5−12=-7>>-7\n#### -7"
    for text in (MAY, "<<100/3=33.33>>33.33\n#### 33.33", "<<2+=5>>5\n#### 5", "no steps"):
        assert execute(text) == text


@given(st.lists(st.tuples(st.integers(1, 99), st.integers(1, 99), st.integers(0, 3)), min_size=1))
def test_after_execution_every_calculation_is_right(sums: list[tuple[int, int, int]]) -> None:
    text = "\n".join(f"so <<{a}+{b}={a + b + slip}>>{a + b + slip}" for a, b, slip in sums)
    assert all(step.right for step in read_steps(execute(text), "keep"))


STEPS = st.tuples(
    st.integers(0, 12), st.sampled_from("+-*/"), st.integers(0, 12), st.integers(0, 12)
)


@given(st.lists(STEPS, min_size=1, max_size=6), st.integers(0, 12))
def test_what_was_executed_stays_as_it_is(
    steps: list[tuple[int, str, int, int]], last: int
) -> None:
    lines = [f"<<{a}{sign}{b}={stated}>>{stated}" for a, sign, b, stated in steps]
    text = "\n".join([*lines, f"#### {last}"])
    assert execute(execute(text)) == execute(text)


def test_a_step_that_a_corrected_result_makes_impossible_is_left_so() -> None:
    assert execute("<<5-5=5>>5 <<10/5=3>>3\n#### 3") == "<<5-5=0>>0 <<10/0=3>>3\n#### 3"
    assert execute("<<6-5=2>>2 <<2+2>>\n#### 2") == "<<6-5=1>>1 <<2+2>>\n#### 1"


@pytest.mark.parametrize("piece", ["9,", "9", "1 ", "1/", "1 1", "-", "- 1 ", "1e", "9\xa0", "½"])
def test_long_texts_are_read_in_a_moment(piece: str) -> None:
    text = f"#### {piece * 100_000}"
    start = time.process_time()
    for read in (strict_answer, flexible_answer, gold_answer):
        read(text)
    assert time.process_time() - start < 2


def test_ten_thousand_steps_are_read_in_a_moment() -> None:
    text = "\n".join(f"now <<{n}+1={n + 1}>>{n + 1}" for n in range(10_000))
    start = time.process_time()
    assert all(step.right for step in read_steps(execute(text), "keep"))
    assert len(read_steps(strip(text.replace("<<", "").replace(">>", " ")), "strip")) == 10_000
    assert time.process_time() - start < 10


@pytest.mark.parametrize("text", ["0,125", "0,500", "00,123", "0\u00a0125"])
def test_a_leading_zero_groups_no_thousands(text: str) -> None:
    assert gold_answer(f"a\n#### {text}") is None
    assert strict_answer(f"#### {text}") is None
    assert flexible_answer(f"it is {text}") is None


def test_a_figure_space_separates_thousands() -> None:
    assert gold_answer("a\n#### 1\u2007234") == Fraction(1234)
    assert strict_answer("#### 1\u2007234") == "1\u2007234"


@pytest.mark.parametrize("text", ["1\\,234", "1{,}234", "1٬234", "1٫5", "1 : 2"])
def test_other_ways_to_join_digits_are_not_read_by_half(text: str) -> None:
    assert strict_answer(f"#### {text}") is None and gold_answer(f"a\n#### {text}") is None
    assert flexible_answer(f"it is {text}") is None
