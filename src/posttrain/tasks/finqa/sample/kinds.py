"""The kinds of questions that `pocket` was pretrained on, as data: a program with holes, their values, and wordings.

The kinds that it has never seen are in `unseen`. `pretrain.exercises` uses those of this module, so a change here
changes the exercises that `pocket` was trained on.

Holes: `{a}`, `{b}`, `{c}` are the values of different items in the year `y` that is asked about; `{a0}` and `{a1}`
those of one item in two years `y0 < y1`; `{a2}`, `{a3}`, `{a4}` those in the years after `y1`, all consecutive (`yn` is
the last one). `{A}` is the label of a table row, `{total}` the total over a schedule's years. `{n}` is `const_<years
between>`, `{dollars}` the constant from the page's unit to single dollars. `needs` says which sources and kinds of
items fit; a relation kind takes its numbers from one sentence. Weights are relative within the same number of steps.

Steps and operations follow FinQA's distribution, but rare operations are more frequent, so that each can be learned
from a few thousand examples.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of question.

    needs: maps a hole's letter to words that its item must match, such as "table money". answer: the form in which a
    person would write the result: number, percent or yesno. positive: asked only where the value is above zero ("by how
    much did ... fall").
    """

    name: str
    weight: float
    program: str
    needs: dict[str, str]
    templates: tuple[str, ...]
    answer: str = "number"
    relation: str = ""
    positive: bool = False

    @property
    def steps(self) -> int:
        return self.program.count("(")


Levels = tuple[tuple[tuple[Kind, ...], float], ...]  # (kinds, their share)


def lines(text: str) -> tuple[str, ...]:
    """The lines of an indented text, one wording each."""
    return tuple(line.strip() for line in text.strip().splitlines())


_ANY = {"a": "money"}
_TABLE = {"a": "table money"}
_PAIR = {"a": "table money", "b": "table money"}
_MIXED = {"a": "text money", "b": "table money"}

_CHANGE = lines(
    """
    what was the change in {a} from {y0} to {y1}?
    by how much did {a} change between {y0} and {y1}?
    what was the net change in {a} during the period from {y0} to {y1}, in {unit}s?
    how much higher was {a} in {y1} than in {y0}?
    what is the difference between {a} in {y1} and in {y0}?
    compared with {y0}, what was the increase or decrease in {a} in {y1}?
    in {unit}s, how much did {a} move from {y0} to {y1}?
    """
)
_PERCENT_CHANGE = lines(
    """
    what was the percentage change in {a} from {y0} to {y1}?
    by what percent did {a} change between {y0} and {y1}?
    what is the growth rate of {a} from {y0} to {y1}?
    what was the percent increase or decrease in {a} in {y1} compared to {y0}?
    what percentage did {a} grow by from {y0} to {y1}?
    relative to {y0}, by what percent was {a} higher or lower in {y1}?
    what is the rate of change of {a} between {y0} and {y1}?
    """
)
_GREATER_YEAR = lines(
    """
    was {a} greater in {y1} than in {y0}?
    did {a} increase from {y0} to {y1}?
    was {a} for {y1} higher than the amount for {y0}?
    is {a} in {y1} above its level in {y0}?
    did {a} exceed the {y0} amount in {y1}?
    did {a} grow between {y0} and {y1}?
    """
)
_LESS_YEAR = lines(
    """
    was {a} greater in {y0} than in {y1}?
    did {a} decrease from {y0} to {y1}?
    did {a} decline between {y0} and {y1}?
    was {a} for {y1} lower than the amount for {y0}?
    is {a} in {y1} below its level in {y0}?
    did {a} fall from {y0} to {y1}?
    """
)
_SHARE = lines(
    """
    what percentage of {b} in {y} was {a}?
    what portion of {b} did {a} represent in {y}?
    what was the ratio of {a} to {b} in {y}?
    in {y}, {a} was what percent of {b}?
    as a percent of {b}, what was {a} in {y}?
    for {y}, what share of {b} does {a} make up?
    what is {a} divided by {b} for {y}?
    """
)
_DIFFERENCE = lines(
    """
    what was the difference between {a} and {b} in {y}?
    by how much did {a} exceed {b} in {y}?
    in {y}, how much larger was {a} than {b}?
    what is {a} less {b} for {y}?
    for {y}, what was {a} net of {b}, in {unit}s?
    what remains of {a} in {y} after {b} is taken out?
    """
)
_SUM = lines(
    """
    what was the sum of {a} and {b} in {y}?
    what was the combined amount of {a} and {b} in {y}?
    in {y}, what did {a} and {b} add up to?
    what is the total of {a} and {b} for {y}, in {unit}s?
    how much were {a} and {b} together in {y}?
    for {y}, what were {a} plus {b}?
    """
)
_AVERAGE = lines(
    """
    what was the average {a} for {y0} and {y1}?
    what is the average of {a} in {y0} and {y1}?
    on average, what was {a} in the years {y0} and {y1}?
    what was the mean {a} over {y0} and {y1}?
    for {y0} and {y1}, what was {a} on average, in {unit}s?
    what was the two-year average of {a}, using {y0} and {y1}?
    """
)

ONE_STEP = (
    Kind("share_of_row", 15, "divide({a}, {b})", _PAIR, _SHARE, "percent"),
    Kind(
        "share_of_total",
        10,
        "divide({a}, {b})",
        {"a": "table money", "b": "table sum"},
        _SHARE,
        "percent",
    ),
    Kind("share_text_table", 8, "divide({a}, {b})", _MIXED, _SHARE, "percent"),
    Kind(
        "share_of_schedule",
        8,
        "divide({a}, {total})",
        {"a": "schedule money"},
        lines(
            """
            what percentage of total {a} is due in {y}?
            what portion of {a} falls in {y}?
            what share of total {a} is scheduled for {y}?
            as a percent of the total, how much of {a} is due in {y}?
            what is the ratio of {a} for {y} to the total?
            how large a part of all {a} is expected in {y}?
            """
        ),
        "percent",
    ),
    Kind(
        "ratio_of_years",
        6,
        "divide({a1}, {a0})",
        _ANY,
        lines(
            """
            what was the ratio of {a} in {y1} to {a} in {y0}?
            what is the ratio of {a} for {y1} compared to {y0}?
            how many times its {y0} level was {a} in {y1}?
            what was {a} in {y1} as a multiple of {y0}?
            {a} in {y1} was what fraction of {a} in {y0}?
            as a ratio, how does {a} in {y1} compare with {y0}?
            """
        ),
    ),
    Kind("change", 12, "subtract({a1}, {a0})", _ANY, _CHANGE),
    Kind("change_of_rate", 3, "subtract({a1}, {a0})", {"a": "percent"}, _CHANGE, "percent"),
    Kind("difference", 7, "subtract({a}, {b})", _PAIR, _DIFFERENCE),
    Kind(
        "difference_text_table",
        3,
        "subtract({b}, {a})",
        _MIXED,
        tuple(
            t.replace("{a}", "\0").replace("{b}", "{a}").replace("\0", "{b}") for t in _DIFFERENCE
        ),
    ),
    Kind("sum", 7, "add({a}, {b})", _PAIR, _SUM),
    Kind("sum_text_table", 4, "add({a}, {b})", _MIXED, _SUM),
    Kind(
        "sum_of_years",
        6,
        "add({a0}, {a1})",
        _ANY,
        lines(
            """
            what was the total of {a} for {y0} and {y1}?
            how much was {a} in {y0} and {y1} combined?
            what is the sum of {a} in {y0} and in {y1}?
            over {y0} and {y1}, what did {a} add up to, in {unit}s?
            what is the combined {a} for the years {y0} and {y1}?
            adding {y0} and {y1}, how much was {a}?
            """
        ),
    ),
    Kind(
        "share_amount",
        5,
        "multiply({a}, {p})",
        {},
        lines(
            """
            how much of {a} in {y} came from {who}?
            what amount of {a} was attributable to {who} in {y}?
            in {unit}s, how much {a} related to {who} in {y}?
            what was the part of {a} in {y} that {who} accounted for, in {unit}s?
            for {y}, what was {a} from {who}?
            what is the dollar amount of {a} tied to {who} for {y}?
            """
        ),
        relation="share",
    ),
    Kind(
        "repurchase_cost",
        4,
        "multiply({shares}, {price})",
        {},
        lines(
            """
            what was the total cost of the shares repurchased in {y}?
            how much did the company pay for the shares it bought back in {y}?
            what is the total value of the common stock repurchased during {y}?
            how much cash was used to repurchase shares in {y}?
            what was spent on share repurchases in {y}, in dollars?
            in dollars, what did the repurchased shares cost in {y}?
            """
        ),
        relation="repurchase",
    ),
    Kind(
        "into_smaller_unit",
        3,
        "multiply({a}, const_1000)",
        {"a": "bigger"},
        lines(
            """
            what was {a} in {y}, in {unit}s?
            how many {unit}s was {a} in {y}?
            expressed in {unit}s, what was {a} for {y}?
            in {unit}s of dollars, how much was {a} in {y}?
            what is {a} of {y} converted to {unit}s?
            for {y}, what was {a} stated in {unit}s?
            """
        ),
    ),
    Kind(
        "into_bigger_unit",
        3,
        "divide({a}, const_1000)",
        _ANY,
        lines(
            """
            what was {a} in {y}, in {bigger}s?
            how many {bigger}s was {a} in {y}?
            expressed in {bigger}s, what was {a} for {y}?
            in {bigger}s of dollars, how much was {a} in {y}?
            what is {a} of {y} converted to {bigger}s?
            for {y}, what was {a} stated in {bigger}s?
            """
        ),
    ),
    Kind(
        "into_dollars",
        2,
        "multiply({a}, {dollars})",
        _ANY,
        lines(
            """
            what was {a} in {y}, in dollars?
            what is the actual dollar value of {a} in {y}?
            expressed in single dollars, what was {a} for {y}?
            how many dollars was {a} in {y}?
            what is {a} of {y} written out in dollars?
            for {y}, what was {a} in whole dollars?
            """
        ),
    ),
    Kind("greater_year", 3, "greater({a1}, {a0})", _ANY, _GREATER_YEAR, "yesno"),
    Kind("less_year", 2, "greater({a0}, {a1})", _ANY, _LESS_YEAR, "yesno"),
    Kind(
        "greater_row",
        4,
        "greater({a}, {b})",
        _PAIR,
        lines(
            """
            was {a} greater than {b} in {y}?
            did {a} exceed {b} in {y}?
            in {y}, was {a} larger than {b}?
            was {a} higher than {b} for {y}?
            for {y}, is {a} more than {b}?
            is the amount of {a} above that of {b} in {y}?
            """
        ),
        "yesno",
    ),
    Kind(
        "table_average",
        4,
        "table_average({A}, none)",
        _TABLE,
        lines(
            """
            what was the average {a} over all the years shown?
            what is the average annual {a} in the table?
            across the years presented, what was {a} on average?
            what was the mean of {a} for the periods in the table?
            considering every year shown, what is the average {a}?
            on average, how much was {a} per year in the table?
            """
        ),
    ),
    Kind(
        "table_max",
        3,
        "table_max({A}, none)",
        _TABLE,
        lines(
            """
            what was the highest {a} in the years shown?
            what is the maximum {a} in the table?
            across the years presented, what was the largest {a}?
            what was {a} at its peak during the periods shown?
            what is the greatest amount of {a} reported in any year of the table?
            how much was {a} in its highest year?
            """
        ),
    ),
    Kind(
        "table_min",
        3,
        "table_min({A}, none)",
        _TABLE,
        lines(
            """
            what was the lowest {a} in the years shown?
            what is the minimum {a} in the table?
            across the years presented, what was the smallest {a}?
            what was {a} at its low point during the periods shown?
            what is the least amount of {a} reported in any year of the table?
            how much was {a} in its lowest year?
            """
        ),
    ),
    Kind(
        "table_sum",
        5,
        "table_sum({A}, none)",
        _TABLE,
        lines(
            """
            what was the total {a} over all the years shown?
            what is the sum of {a} across the table?
            across the years presented, what did {a} add up to?
            what was the cumulative {a} for the periods in the table?
            considering every year shown, what is the total of {a}?
            how much was {a} in all years of the table together?
            """
        ),
    ),
)

TWO_STEPS = (
    Kind(
        "percent_change",
        17,
        "subtract({a1}, {a0}), divide(#0, {a0})",
        _ANY,
        _PERCENT_CHANGE,
        "percent",
    ),
    Kind("average", 5, "add({a0}, {a1}), divide(#0, const_2)", _ANY, _AVERAGE),
    Kind(
        "share_of_pair",
        3,
        "add({a}, {b}), divide({a}, #0)",
        _PAIR,
        lines(
            """
            what portion of the sum of {a} and {b} was {a} in {y}?
            of {a} and {b} combined, what percent was {a} in {y}?
            in {y}, what share of {a} plus {b} did {a} make up?
            what percentage of the total of {a} and {b} came from {a} in {y}?
            for {y}, what is {a} as a percent of {a} and {b} together?
            what fraction of the combined {a} and {b} was {a} in {y}?
            """
        ),
        "percent",
    ),
    Kind(
        "pair_of_total",
        3,
        "add({a}, {b}), divide(#0, {c})",
        {"a": "table money", "b": "table money", "c": "table money"},
        lines(
            """
            what percent of {c} was the sum of {a} and {b} in {y}?
            in {y}, {a} and {b} together were what portion of {c}?
            what was the ratio of {a} plus {b} to {c} in {y}?
            as a percent of {c}, what were {a} and {b} combined in {y}?
            for {y}, what share of {c} do {a} and {b} add up to?
            what fraction of {c} did {a} and {b} represent together in {y}?
            """
        ),
        "percent",
    ),
    Kind(
        "sum_less",
        2,
        "add({a}, {b}), subtract(#0, {c})",
        {"a": "table money", "b": "table money", "c": "money"},
        lines(
            """
            what was {a} plus {b} less {c} in {y}?
            by how much did {a} and {b} together exceed {c} in {y}?
            in {y}, what is the sum of {a} and {b} net of {c}?
            how much of {a} and {b} combined remains after {c} in {y}?
            for {y}, what are {a} and {b} in total minus {c}?
            after subtracting {c}, what was the total of {a} and {b} in {y}?
            """
        ),
    ),
    Kind(
        "unit_ratio",
        2,
        "multiply({a}, const_1000), divide({b}, #0)",
        {"a": "bigger", "b": "table money"},
        lines(
            """
            what was {b} as a percent of {a} in {y}?
            in {y}, {b} was what portion of {a}?
            what is the ratio of {b} to {a} for {y}?
            what percentage of {a} did {b} equal in {y}?
            for {y}, what share of {a} would {b} make up?
            how large was {b} relative to {a} in {y}?
            """
        ),
        "percent",
    ),
    Kind(
        "growth_factor",
        4,
        "add(const_1, {p}), exp(#0, const_{span})",
        {},
        lines(
            """
            by what factor would {a} multiply after {span} years of the expected growth?
            if the expected annual growth holds for {span} years, what is the growth factor of {a}?
            what is the compound growth factor of {a} over {span} years at the projected rate?
            at the projected growth rate, how many times its {y} level is {a} after {span} years?
            what multiple of the {y} amount does {span} years of expected growth imply for {a}?
            compounding the expected growth for {span} years, by what factor does {a} rise?
            """
        ),
        relation="growth",
    ),
    Kind(
        "share_remainder",
        2,
        "subtract(const_1, {p}), multiply({a}, #0)",
        {},
        lines(
            """
            how much of {a} in {y} did not come from {who}?
            excluding {who}, what was {a} in {y}?
            what was {a} in {y} other than the part from {who}, in {unit}s?
            in {y}, how much {a} remains without {who}?
            for {y}, what is the amount of {a} not attributable to {who}?
            leaving out {who}, how much was {a} in {y}, in {unit}s?
            """
        ),
        relation="share",
    ),
    Kind(
        "next_year",
        2,
        "add(const_1, {p}), multiply({a}, #0)",
        {},
        lines(
            """
            what would {a} be in the year after {y} at the expected growth rate?
            what level of {a} does management expect one year after {y}?
            if {a} grows as projected, how much will it be in the following year?
            applying the expected growth once, what is {a} after {y}?
            in {unit}s, what is the projected {a} for the year following {y}?
            given the expected annual growth, what will {a} be a year after {y}?
            """
        ),
        relation="growth",
    ),
    Kind(
        "against_average",
        2,
        "table_average({A}, none), subtract({a}, #0)",
        _TABLE,
        lines(
            """
            how far was {a} in {y} from its average over the years shown?
            by how much did {a} in {y} exceed its average in the table?
            what is the difference between {a} in {y} and the average of all years shown?
            compared with the average of the periods presented, how much higher was {a} in {y}?
            what was {a} in {y} less its average across the table?
            how much above the table average was {a} in {y}?
            """
        ),
    ),
    Kind(
        "in_percent_points",
        2,
        "divide({a}, {b}), multiply(#0, const_100)",
        _PAIR,
        lines(
            """
            how many cents of {a} were there per dollar of {b} in {y}?
            per 100 dollars of {b}, how much was {a} in {y}?
            for each 100 of {b}, what was {a} in {y}?
            in {y}, how many units of {a} stood against every 100 units of {b}?
            what was {a} for every hundred of {b} in {y}?
            how much {a} came with each hundred dollars of {b} in {y}?
            """
        ),
    ),
    Kind(
        "years_of_schedule",
        4,
        "add({a0}, {a1}), divide(#0, {total})",
        {"a": "schedule money"},
        lines(
            """
            what percentage of total {a} is due in {y0} and {y1}?
            what portion of {a} falls in {y0} and {y1} together?
            as a percent of the total, how much of {a} is due in {y0} and {y1}?
            what share of all {a} is scheduled for {y0} and {y1}?
            how large a part of total {a} do {y0} and {y1} make up?
            what fraction of {a} is expected in {y0} and {y1} combined?
            """
        ),
        "percent",
    ),
)

MORE_STEPS = (
    Kind(
        "average_of_three",
        3,
        "add({a0}, {a1}), add(#0, {a2}), divide(#1, const_3)",
        _ANY,
        lines(
            """
            what was the average {a} for the three years from {y0} to {yn}?
            what is the three-year average of {a} from {y0} through {yn}?
            on average, how much was {a} in {y0}, {y1} and {yn}?
            what was the mean {a} over {y0}, {y1} and {yn}?
            for the years {y0} to {yn}, what was {a} on average?
            what is the average of {a} in {y0}, {y1} and {yn}, in {unit}s?
            """
        ),
    ),
    Kind(
        "change_of_difference",
        3,
        "subtract({a1}, {b1}), subtract({a0}, {b0}), subtract(#0, #1)",
        _PAIR,
        lines(
            """
            how did the difference between {a} and {b} change from {y0} to {y1}?
            what was the change in {a} net of {b} from {y0} to {y1}?
            by how much did the gap between {a} and {b} widen from {y0} to {y1}?
            what is the change between {y0} and {y1} in {a} less {b}?
            how much did {a} minus {b} move between {y0} and {y1}?
            what was the increase in the excess of {a} over {b} from {y0} to {y1}?
            """
        ),
    ),
    Kind(
        "range",
        2,
        "table_max({A}, none), table_min({A}, none), subtract(#0, #1)",
        _TABLE,
        lines(
            """
            what was the range of {a} over the years shown?
            what is the difference between the highest and the lowest {a} in the table?
            how far apart were the largest and smallest {a} in the periods presented?
            by how much did {a} at its peak exceed its low point in the table?
            across the years shown, what separates the maximum and minimum of {a}?
            what is the spread between the best and the worst year of {a}?
            """
        ),
    ),
    Kind(
        "projected",
        4,
        "add(const_1, {p}), exp(#0, const_{span}), multiply({a}, #1)",
        {},
        lines(
            """
            what would {a} be {span} years after {y} at the expected growth rate?
            if {a} grows as projected, how much will it be after {span} years?
            compounding the expected growth for {span} years, what is {a}?
            in {unit}s, what is the projected {a} {span} years after {y}?
            what level does {a} reach in {span} years if the expected growth holds?
            given the annual growth expected, what will {a} be {span} years later than {y}?
            """
        ),
        relation="growth",
    ),
    Kind(
        "ratio_comparison",
        2,
        "divide({a1}, {b1}), divide({a0}, {b0}), greater(#0, #1)",
        _PAIR,
        lines(
            """
            was {a} as a percent of {b} greater in {y1} than in {y0}?
            did the ratio of {a} to {b} increase from {y0} to {y1}?
            was the share of {a} in {b} higher in {y1} than in {y0}?
            relative to {b}, did {a} grow between {y0} and {y1}?
            is the ratio of {a} to {b} in {y1} above that of {y0}?
            did {a} divided by {b} rise from {y0} to {y1}?
            """
        ),
        "yesno",
    ),
    Kind(
        "annual_growth",
        3,
        "divide({a1}, {a0}), divide(const_1, {n}), exp(#0, #1), subtract(#2, const_1)",
        {"a": "money gap"},
        lines(
            """
            what was the compound annual growth rate of {a} from {y0} to {y1}?
            at what compound rate per year did {a} grow from {y0} to {y1}?
            what is the average annual compounded growth of {a} between {y0} and {y1}?
            what yearly compound growth takes {a} from its {y0} to its {y1} level?
            from {y0} to {y1}, what was the cagr of {a}?
            what was the annualized growth rate of {a} over the period {y0} to {y1}?
            """
        ),
        "percent",
    ),
    Kind(
        "percent_change_of_sum",
        2,
        "add({a1}, {b1}), add({a0}, {b0}), subtract(#0, #1), divide(#2, #1)",
        _PAIR,
        lines(
            """
            what was the percentage change in the sum of {a} and {b} from {y0} to {y1}?
            by what percent did {a} and {b} combined change between {y0} and {y1}?
            what is the growth rate of {a} plus {b} from {y0} to {y1}?
            together, by what percent did {a} and {b} grow from {y0} to {y1}?
            what was the percent change of the total of {a} and {b} between {y0} and {y1}?
            relative to {y0}, by what percent were {a} and {b} together higher in {y1}?
            """
        ),
        "percent",
    ),
    Kind(
        "average_of_four",
        1,
        "add({a0}, {a1}), add(#0, {a2}), add(#1, {a3}), divide(#2, const_4)",
        _ANY,
        lines(
            """
            what was the average {a} for the four years from {y0} to {yn}?
            what is the four-year average of {a} from {y0} through {yn}?
            on average, how much was {a} per year from {y0} to {yn}?
            what was the mean {a} over the years {y0} to {yn}?
            for the four years ending {yn}, what was {a} on average?
            what is the average of {a} from {y0} to {yn}, in {unit}s?
            """
        ),
    ),
    Kind(
        "growth_comparison",
        2,
        "subtract({a1}, {a0}), divide(#0, {a0}), "
        "subtract({b1}, {b0}), divide(#2, {b0}), greater(#1, #3)",
        _PAIR,
        lines(
            """
            did {a} grow faster than {b} from {y0} to {y1}?
            was the percent change of {a} greater than that of {b} from {y0} to {y1}?
            between {y0} and {y1}, was the growth rate of {a} above that of {b}?
            did {a} outgrow {b} between {y0} and {y1}?
            from {y0} to {y1}, did {a} rise by a larger percentage than {b}?
            is the growth of {a} in percent higher than the growth of {b} from {y0} to {y1}?
            """
        ),
        "yesno",
    ),
    Kind(
        "growth_difference",
        2,
        "subtract({a1}, {a0}), divide(#0, {a0}), "
        "subtract({b1}, {b0}), divide(#2, {b0}), subtract(#1, #3)",
        _PAIR,
        lines(
            """
            what was the difference between the growth rates of {a} and {b} from {y0} to {y1}?
            by how much did the percent change of {a} exceed that of {b} from {y0} to {y1}?
            how much faster did {a} grow than {b} between {y0} and {y1}?
            from {y0} to {y1}, what is the growth rate of {a} less the growth rate of {b}?
            what separates the percentage changes of {a} and {b} between {y0} and {y1}?
            what is the percent change of {a} minus that of {b} from {y0} to {y1}?
            """
        ),
        "percent",
    ),
)

# FinQA has 59 % one step, 33 % two, 8 % more.
PRETRAINED: Levels = ((ONE_STEP, 0.58), (TWO_STEPS, 0.32), (MORE_STEPS, 0.10))
