"""Kinds of questions that `pocket` was not pretrained on, so that fine-tuning has something to teach.

They have the same pages and holes as those of `kinds`, but other wordings. Most are programs of another form (a change
of a share, a difference of two changes, an average of a ratio, a projection at the rate of the last year). The rest are
known programs with wordings that turn them round: "what multiple of {a} was {b}", "how much lower", "{b} other than
{a}". A few kinds are frequent and many are rare, as in FinQA, so that SFT can learn some from a thousand questions, and
hardly the others.

Further holes: `{B}` is the label of `{b}`'s row, `{next}` the year after the last one asked about. Further words in
`needs`: a `part` is a row that is no total, so that nothing is counted twice; a `flow` is an amount over a year; a
`latest` item is asked about in its last two years.
"""

from __future__ import annotations

from posttrain.tasks.finqa.sample.kinds import Kind, Levels, lines

_ANY = {"a": "money"}
_TABLE = {"a": "table money"}
_PAIR = {"a": "table money", "b": "table money"}
_PARTS = {"a": "table money part", "b": "table money part"}
_OF_TOTAL = {"a": "table money", "b": "table sum"}
_FLOW = {"a": "money flow"}
_LATEST = {"a": "table money latest"}

_ONE_STEP = (
    Kind(
        "multiple_of_row",
        12,
        "divide({b}, {a})",
        _PAIR,
        lines(
            """
            what multiple of {a} was {b} in {y}?
            how many times as large as {a} was {b} in {y}?
            in {y}, {b} was how many times {a}?
            for each unit of {a}, how much {b} was there in {y}?
            measured against {a}, how many times as much was {b} in {y}?
            for {y}, what is {b} expressed as a multiple of {a}?
            """
        ),
        positive=True,
    ),
    Kind(
        "decrease",
        20,
        "subtract({a0}, {a1})",
        _ANY,
        lines(
            """
            by how much did {a} decrease from {y0} to {y1}?
            what was the decline in {a} between {y0} and {y1}?
            how much lower was {a} in {y1} than in {y0}?
            how much smaller was {a} in {y1} than it had been in {y0}?
            how far did {a} fall from {y0} to {y1}, in {unit}s?
            what was the reduction of {a} from its {y0} level by {y1}?
            """
        ),
        positive=True,
    ),
    Kind(
        "ratio_of_earlier_year",
        12,
        "divide({a0}, {a1})",
        _ANY,
        lines(
            """
            what was the ratio of {a} in {y0} to {a} in {y1}?
            as a fraction of its {y1} level, how large was {a} in {y0}?
            what was {a} in {y0}, as a fraction of {a} in {y1}?
            {a} in {y0} was what fraction of {a} in {y1}?
            if {a} in {y1} is set to 1, how large was it in {y0}?
            what was {a} in {y0} as a part of the {y1} amount?
            """
        ),
    ),
    Kind(
        "other_than",
        36,
        "subtract({b}, {a})",
        _OF_TOTAL,
        lines(
            """
            how much of {b} in {y} was not {a}?
            what was {b} in {y} other than {a}?
            leaving {a} aside, how much of {b} was there in {y}?
            what is left of {b} in {y} without {a}?
            if {a} had been zero in {y}, what would {b} have been?
            for {y}, what is {b} once {a} is excluded?
            """
        ),
    ),
    Kind(
        "monthly",
        9,
        "divide({a}, const_12)",
        _FLOW,
        lines(
            """
            on average, how much was {a} per month in {y}?
            what was the average monthly {a} in {y}?
            what was {a} in a typical month of {y}, if it was spread evenly?
            how much was {a} for each month of {y} on average?
            what did {a} come to per month in {y}?
            in {unit}s, what was the monthly average of {a} during {y}?
            """
        ),
    ),
    Kind(
        "quarterly",
        2,
        "divide({a}, const_4)",
        _FLOW,
        lines(
            """
            on average, how much was {a} per quarter in {y}?
            what was the average quarterly {a} in {y}?
            what was {a} in a typical quarter of {y}, if it was spread evenly?
            how much was {a} for each quarter of {y} on average?
            what did {a} come to per quarter in {y}?
            in {unit}s, what was the quarterly average of {a} during {y}?
            """
        ),
    ),
    Kind(
        "other_years_of_schedule",
        18,
        "subtract({total}, {a})",
        {"a": "schedule money"},
        lines(
            """
            how much of total {a} is due in years other than {y}?
            what is the total of {a} excluding {y}?
            apart from {y}, how much {a} is scheduled in all?
            what remains of total {a} once the amount for {y} is taken out?
            how much {a} does not fall in {y}?
            leaving {y} aside, what do all {a} come to?
            """
        ),
    ),
    Kind(
        "share_not_from",
        4,
        "subtract(const_1, {p})",
        {},
        lines(
            """
            what percentage of {a} in {y} did not come from {who}?
            what share of {a} in {y} was unrelated to {who}?
            excluding {who}, what percent of {a} remains in {y}?
            for {y}, what portion of {a} is not attributable to {who}?
            how large a part of {a} in {y} was from sources other than {who}?
            in {y}, what percent of {a} came from elsewhere than {who}?
            """
        ),
        "percent",
        relation="share",
    ),
    Kind(
        "growth_amount",
        4,
        "multiply({a}, {p})",
        {},
        lines(
            """
            by what amount is {a} expected to grow in the year after {y}?
            how much would {a} add in the year following {y} at the expected growth?
            in {unit}s, what increase in {a} is projected for the year after {y}?
            what does one year of the expected growth add to {a} of {y}?
            how much higher than in {y} is {a} expected to be a year later?
            what is the expected increase in {a} over the year after {y}, in {unit}s?
            """
        ),
        relation="growth",
    ),
    Kind(
        "smaller_row",
        14,
        "greater({b}, {a})",
        _PAIR,
        lines(
            """
            was {a} smaller than {b} in {y}?
            was {a} below {b} in {y}?
            did {a} fall short of {b} in {y}?
            in {y}, was there less {a} than {b}?
            is {a} of {y} less than {b}?
            for {y}, did {a} stay under {b}?
            """
        ),
        "yesno",
    ),
    Kind(
        "share_text_text",
        2,
        "divide({a}, {b})",
        {"a": "text money", "b": "text money"},
        lines(
            """
            how large was {a} against {b} in {y}?
            in {y}, {a} equaled what percent of {b}?
            measured against {b}, what was {a} in {y}, in percent?
            what percent of the amount of {b} was the amount of {a} in {y}?
            as a percent of the amount of {b}, how large was {a} in {y}?
            for {y}, how does {a} compare with {b}, as a ratio of the first to the second?
            """
        ),
        "percent",
    ),
    Kind(
        "sum_text_text",
        2,
        "add({a}, {b})",
        {"a": "text money", "b": "text money"},
        lines(
            """
            taken together, how much were {a} and {b} in {y}?
            what did {a} and {b} come to in {y}, counted together?
            if {a} and {b} are pooled, what is their amount in {y}?
            counting both {a} and {b}, what was the amount in {y}?
            what was the joint amount of {a} and {b} in {y}, in {unit}s?
            for {y}, what is {a} when {b} is added to it?
            """
        ),
    ),
)

_TWO_STEPS = (
    Kind(
        "percent_decrease",
        6,
        "subtract({a0}, {a1}), divide(#0, {a0})",
        _ANY,
        lines(
            """
            by what percent did {a} decrease from {y0} to {y1}?
            what percentage of its {y0} level did {a} lose by {y1}?
            what was the percentage decline in {a} between {y0} and {y1}?
            what percent lower was {a} in {y1} than in {y0}?
            how far, in percent, did {a} fall from {y0} to {y1}?
            what was the percent reduction of {a} from {y0} to {y1}?
            """
        ),
        "percent",
        positive=True,
    ),
    Kind(
        "share_without",
        26,
        "subtract({b}, {a}), divide(#0, {b})",
        _OF_TOTAL,
        lines(
            """
            what percentage of {b} in {y} was not {a}?
            what share of {b} remains in {y} if {a} is left out?
            in {y}, what portion of {b} was something other than {a}?
            how large a part of {b} in {y} was not {a}?
            once {a} is excluded, what percent of {b} is left for {y}?
            what fraction of {b} in {y} came from items other than {a}?
            """
        ),
        "percent",
    ),
    Kind(
        "share_of_rest",
        12,
        "subtract({b}, {c}), divide({a}, #0)",
        {"a": "table money", "b": "table sum", "c": "table money"},
        lines(
            """
            excluding {c}, what share of {b} was {a} in {y}?
            what percentage of {b} other than {c} did {a} make up in {y}?
            in {y}, {a} was what percent of {b} without {c}?
            after {c} is taken out of {b}, what portion of the rest was {a} in {y}?
            as a percent of {b} less {c}, what was {a} in {y}?
            what part of {b} excluding {c} was {a} in {y}?
            """
        ),
        "percent",
    ),
    Kind(
        "share_of_all_years",
        12,
        "table_sum({A}, none), divide({a}, #0)",
        _TABLE,
        lines(
            """
            what share of {a} over all the years shown fell in {y}?
            of {a} added up over the periods in the table, what percent was that of {y}?
            how much of the {a} of all years presented came in {y}, as a percent?
            what portion of the {a} of every year in the table belongs to {y}?
            what percent of the cumulative {a} of the years shown was the amount for {y}?
            of {a} summed over the table, which fraction was recorded in {y}?
            """
        ),
        "percent",
    ),
    Kind(
        "above_average",
        10,
        "table_average({A}, none), greater({a}, #0)",
        _TABLE,
        lines(
            """
            was {a} in {y} above its average over the years shown?
            was {a} in {y} greater than its average in the table?
            did {a} in {y} exceed the average of all years presented?
            was {y} a year of above-average {a}, among the years shown?
            is {a} of {y} more than the mean of the periods in the table?
            compared with the average of the years shown, was {a} higher in {y}?
            """
        ),
        "yesno",
    ),
    Kind(
        "yearly_change",
        5,
        "subtract({a1}, {a0}), divide(#0, {n})",
        {"a": "money gap"},
        lines(
            """
            what was the average change per year in {a} from {y0} to {y1}, in {unit}s?
            by how many {unit}s per year did {a} change on average from {y0} to {y1}?
            what was the average annual change in the amount of {a} from {y0} to {y1}?
            spread evenly over the years, how much did {a} change per year from {y0} to {y1}?
            if {a} had moved in equal steps from {y0} to {y1}, how large would each year's step be?
            how much did {a} gain or lose per year on average between {y0} and {y1}, in {unit}s?
            """
        ),
    ),
    Kind(
        "same_amount_again",
        8,
        "subtract({a1}, {a0}), add({a1}, #0)",
        _LATEST,
        lines(
            """
            if {a} changes by the same amount in {next} as it did from {y0} to {y1}, what will it be?
            what would {a} be in {next} if it changed by as many {unit}s as from {y0} to {y1}?
            assuming another change of the same amount as in {y1}, what is {a} in {next}?
            adding the change from {y0} to {y1} once more, how much is {a} in {next}?
            with a change as large as that from {y0} to {y1}, where would {a} stand in {next}?
            extending the change in amount from {y0} to {y1} by one year, what is {a} for {next}?
            """
        ),
    ),
    Kind(
        "same_rate_again",
        12,
        "divide({a1}, {a0}), multiply({a1}, #0)",
        _LATEST,
        lines(
            """
            if {a} grows in {next} at the same rate as from {y0} to {y1}, what will it be?
            what would {a} be in {next} at the growth rate of {y1}?
            assuming the percentage change from {y0} to {y1} is repeated, what is {a} in {next}?
            at the rate of change from {y0} to {y1}, how much will {a} be in {next}?
            in {unit}s, what is {a} for {next} if it changes by the same percent as in {y1}?
            with the same growth rate as between {y0} and {y1}, where would {a} stand in {next}?
            """
        ),
    ),
    Kind(
        "sum_of_three_years",
        8,
        "add({a0}, {a1}), add(#0, {a2})",
        _ANY,
        lines(
            """
            what was the total of {a} for {y0}, {y1} and {y2}?
            how much was {a} in the three years from {y0} to {y2} combined?
            what is the sum of {a} in {y0}, {y1} and {y2}?
            over the three years ending {y2}, what did {a} add up to?
            what is the combined {a} for the three years {y0} to {y2}, in {unit}s?
            adding {y0}, {y1} and {y2}, how much was {a}?
            """
        ),
    ),
    Kind(
        "sum_of_three_rows",
        12,
        "add({a}, {b}), add(#0, {c})",
        {**_PARTS, "c": "table money part"},
        lines(
            """
            what was the sum of {a}, {b} and {c} in {y}?
            in {y}, what did {a}, {b} and {c} add up to?
            how much were {a}, {b} and {c} together in {y}?
            what is the total of {a}, {b} and {c} for {y}, in {unit}s?
            what was the combined amount of {a}, {b} and {c} in {y}?
            for {y}, what were {a} plus {b} plus {c}?
            """
        ),
    ),
    Kind(
        "average_of_rows",
        6,
        "add({a}, {b}), divide(#0, const_2)",
        _PARTS,
        lines(
            """
            what was the average of {a} and {b} in {y}?
            on average, how much were {a} and {b} in {y}?
            what is the mean of {a} and {b} for {y}?
            midway between {a} and {b}, what amount lies in {y}?
            for {y}, what do {a} and {b} average?
            in {unit}s, what is the average of the two amounts of {a} and {b} in {y}?
            """
        ),
    ),
    Kind(
        "share_of_two_years",
        8,
        "add({a0}, {a1}), divide({a1}, #0)",
        _ANY,
        lines(
            """
            of {a} in {y0} and {y1} combined, what percent came in {y1}?
            what share of the {y0} and {y1} total of {a} fell in {y1}?
            what portion of the sum of {a} in {y0} and {y1} belongs to {y1}?
            taking {y0} and {y1} together, what part of {a} was that of {y1}?
            as a percent of {a} over {y0} and {y1}, how much was it in {y1}?
            what fraction of {a} for the two years {y0} and {y1} was recorded in {y1}?
            """
        ),
        "percent",
    ),
    Kind(
        "pair_against_row",
        8,
        "add({a}, {b}), greater(#0, {c})",
        {**_PARTS, "c": "table money"},
        lines(
            """
            were {a} and {b} together greater than {c} in {y}?
            did the sum of {a} and {b} exceed {c} in {y}?
            in {y}, was {a} plus {b} more than {c}?
            did {a} and {b} combined come to more than {c} in {y}?
            for {y}, is {c} less than {a} and {b} together?
            is the total of {a} and {b} above {c} in {y}?
            """
        ),
        "yesno",
    ),
    Kind(
        "sum_across_units",
        2,
        "multiply({a}, const_1000), add(#0, {b})",
        {"a": "bigger", "b": "table money"},
        lines(
            """
            what was the sum of {a} and {b} in {y}, in {unit}s?
            in {unit}s, what did {a} and {b} add up to in {y}?
            how many {unit}s were {a} and {b} together in {y}?
            what is the total of {a} and {b} for {y}, stated in {unit}s?
            expressed in {unit}s, what was the combined amount of {a} and {b} in {y}?
            for {y}, what were {a} plus {b} in {unit}s?
            """
        ),
    ),
    Kind(
        "change_in_bigger_unit",
        4,
        "subtract({a1}, {a0}), divide(#0, const_1000)",
        _ANY,
        lines(
            """
            in {bigger}s, what was the change in {a} from {y0} to {y1}?
            by how many {bigger}s did {a} change between {y0} and {y1}?
            what was the net change in {a} from {y0} to {y1}, expressed in {bigger}s?
            how much did {a} move from {y0} to {y1}, in {bigger}s?
            stated in {bigger}s, what is the difference between {a} in {y1} and in {y0}?
            compared with {y0}, how much higher was {a} in {y1}, in {bigger}s?
            """
        ),
    ),
    Kind(
        "basis_points",
        5,
        "subtract({a1}, {a0}), multiply(#0, const_10000)",
        {"a": "percent"},
        lines(
            """
            by how many basis points did {a} change from {y0} to {y1}?
            in basis points, what was the change in {a} between {y0} and {y1}?
            how many basis points higher or lower was {a} in {y1} than in {y0}?
            what was the move in {a} from {y0} to {y1}, in basis points?
            expressed in basis points, how did {a} change from {y0} to {y1}?
            from {y0} to {y1}, {a} rose or fell by how many basis points?
            """
        ),
    ),
    Kind(
        "repurchase_in_millions",
        3,
        "multiply({shares}, {price}), divide(#0, const_1000000)",
        {},
        lines(
            """
            in millions of dollars, what was the total cost of the shares repurchased in {y}?
            how many million dollars did the company pay for its own shares in {y}?
            expressed in millions, what was spent on share repurchases in {y}?
            what was the cost of the shares bought back in {y}, in millions?
            how much did the share repurchases of {y} cost, stated in millions of dollars?
            for {y}, what did the repurchased stock cost in millions?
            """
        ),
        relation="repurchase",
    ),
    Kind(
        "share_in_bigger_unit",
        3,
        "multiply({a}, {p}), divide(#0, const_1000)",
        {},
        lines(
            """
            in {bigger}s, how much of {a} in {y} came from {who}?
            expressed in {bigger}s, what part of {a} was due to {who} in {y}?
            how many {bigger}s of {a} related to {who} in {y}?
            what was {a} from {who} in {y}, stated in {bigger}s?
            for {y}, what amount of {a} did {who} bring, in {bigger}s?
            what is the amount of {a} tied to {who} in {y}, in {bigger}s?
            """
        ),
        relation="share",
    ),
)

_MORE_STEPS = (
    Kind(
        "change_of_share",
        8,
        "divide({a1}, {b1}), divide({a0}, {b0}), subtract(#0, #1)",
        _PAIR,
        lines(
            """
            by how much did {a} as a percent of {b} change from {y0} to {y1}?
            what was the change in the share of {a} in {b} from {y0} to {y1}?
            how did the ratio of {a} to {b} move between {y0} and {y1}?
            what is the ratio of {a} to {b} in {y1} less that in {y0}?
            from {y0} to {y1}, what was the change in {a} relative to {b}?
            what separates the portion of {b} that {a} made up in {y1} from that in {y0}?
            """
        ),
        "percent",
    ),
    Kind(
        "difference_of_changes",
        6,
        "subtract({a1}, {a0}), subtract({b1}, {b0}), subtract(#0, #1)",
        _PAIR,
        lines(
            """
            what was the change in {a} less the change in {b} from {y0} to {y1}?
            by how much did the change in {a} exceed the change in {b} from {y0} to {y1}?
            what is the difference between the changes in {a} and in {b} from {y0} to {y1}?
            from {y0} to {y1}, how much more did {a} gain than {b}, in {unit}s?
            how much larger was the {y0} to {y1} increase in {a} than that in {b}?
            in {unit}s, how far is the change in {a} above that in {b} between {y0} and {y1}?
            """
        ),
        positive=True,
    ),
    Kind(
        "ratio_of_changes",
        3,
        "subtract({a1}, {a0}), subtract({b1}, {b0}), divide(#0, #1)",
        _PAIR,
        lines(
            """
            what was the ratio of the change in {a} to the change in {b} from {y0} to {y1}?
            what portion of the change in {b} from {y0} to {y1} did the change in {a} equal?
            the change in {a} from {y0} to {y1} was what percent of the change in {b}?
            as a percent of the change in {b}, what was the change in {a} from {y0} to {y1}?
            relative to the change in {b} between {y0} and {y1}, how large was that in {a}?
            what multiple of the {y0} to {y1} change in {b} was the change in {a}?
            """
        ),
        "percent",
    ),
    Kind(
        "change_comparison",
        5,
        "subtract({a1}, {a0}), subtract({b1}, {b0}), greater(#0, #1)",
        _PAIR,
        lines(
            """
            was the change in {a} from {y0} to {y1} greater than the change in {b}?
            did {a} gain more {unit}s than {b} from {y0} to {y1}?
            in {unit}s, did {a} rise by more than {b} between {y0} and {y1}?
            was the {y0} to {y1} increase in {a} larger than that in {b}, in {unit}s?
            between {y0} and {y1}, did the change in {a} exceed that in {b}?
            is the change in {a} from {y0} to {y1} above the change in {b}, in {unit}s?
            """
        ),
        "yesno",
    ),
    Kind(
        "change_of_sum",
        3,
        "add({a1}, {b1}), add({a0}, {b0}), subtract(#0, #1)",
        _PARTS,
        lines(
            """
            by how much did the sum of {a} and {b} change from {y0} to {y1}?
            what was the change in {a} and {b} combined from {y0} to {y1}?
            how much higher was {a} plus {b} in {y1} than in {y0}?
            together, by how much did {a} and {b} change between {y0} and {y1}, in {unit}s?
            what is the difference between the total of {a} and {b} in {y1} and in {y0}?
            from {y0} to {y1}, what did {a} and {b} gain or lose taken together?
            """
        ),
    ),
    Kind(
        "percent_change_of_difference",
        2,
        "subtract({a1}, {b1}), subtract({a0}, {b0}), subtract(#0, #1), divide(#2, #1)",
        _PAIR,
        lines(
            """
            what was the percentage change in {a} net of {b} from {y0} to {y1}?
            by what percent did {a} less {b} change between {y0} and {y1}?
            what is the growth rate of {a} minus {b} from {y0} to {y1}?
            in percent, how did the excess of {a} over {b} change from {y0} to {y1}?
            what was the percent change of the difference between {a} and {b} from {y0} to {y1}?
            relative to {y0}, by what percent was {a} less {b} higher or lower in {y1}?
            """
        ),
        "percent",
    ),
    Kind(
        "average_ratio",
        4,
        "divide({a0}, {b0}), divide({a1}, {b1}), add(#0, #1), divide(#2, const_2)",
        _PAIR,
        lines(
            """
            what was the average ratio of {a} to {b} in {y0} and {y1}?
            on average, what percent of {b} was {a} in {y0} and {y1}?
            what is the mean of the shares of {b} that {a} made up in {y0} and in {y1}?
            averaging the two years {y0} and {y1}, what was {a} as a percent of {b}?
            what was the two-year average of {a} divided by {b}, for {y0} and {y1}?
            over {y0} and {y1}, what portion of {b} did {a} represent in the average year?
            """
        ),
        "percent",
    ),
    Kind(
        "percent_above_average",
        3,
        "table_average({A}, none), subtract({a}, #0), divide(#1, #0)",
        _TABLE,
        lines(
            """
            by what percent was {a} in {y} above or below its average over the years shown?
            relative to its average in the table, by what percent was {a} higher in {y}?
            what is the percentage by which {a} of {y} differs from the average of all years shown?
            in percent of the table average, how far was {a} in {y} from it?
            what percent more than its average over the periods presented was {a} in {y}?
            how far above its average in the table was {a} in {y}, in percent?
            """
        ),
        "percent",
    ),
    Kind(
        "high_over_low",
        2,
        "table_max({A}, none), table_min({A}, none), divide(#0, #1)",
        _TABLE,
        lines(
            """
            how many times its lowest amount was the highest {a} in the table?
            what was the ratio of the highest to the lowest {a} over the years shown?
            the largest {a} in the years shown was what multiple of the smallest?
            divided by its low point, what was {a} at its peak in the table?
            as a multiple of the worst year shown, what was {a} in the best year?
            across the years presented, what is the maximum of {a} over its minimum?
            """
        ),
    ),
    Kind(
        "difference_of_all_years",
        2,
        "table_sum({A}, none), table_sum({B}, none), subtract(#0, #1)",
        _PAIR,
        lines(
            """
            over all the years shown, how much more was {a} than {b}?
            by how much did the total {a} of the years in the table exceed the total {b}?
            summed over the years shown, what is {a} less {b}?
            what is the difference between cumulative {a} and cumulative {b} in the table?
            across the periods presented, what does {a} add up to after all {b} is deducted?
            counting every year in the table, how far was {a} above {b}?
            """
        ),
        positive=True,
    ),
    Kind(
        "against_two_year_average",
        2,
        "add({a0}, {a1}), divide(#0, const_2), greater({a2}, #1)",
        _ANY,
        lines(
            """
            was {a} in {y2} greater than its average of {y0} and {y1}?
            did {a} in {y2} exceed the average of the two years before?
            in {y2}, was {a} above its mean of {y0} and {y1}?
            compared with the average of {y0} and {y1}, was {a} higher in {y2}?
            is {a} of {y2} more than the two-year average of {y0} and {y1}?
            was the {y2} amount of {a} larger than what {y0} and {y1} average?
            """
        ),
        "yesno",
    ),
    Kind(
        "same_rate_increase",
        2,
        "subtract({a1}, {a0}), divide(#0, {a0}), multiply({a1}, #1)",
        _LATEST,
        lines(
            """
            if {a} changes in {next} at the same rate as from {y0} to {y1}, by how much will it change?
            at the growth rate of {y1}, how much would {a} gain or lose in {next}?
            how much would {next} add to {a} if the percent change of {y1} is repeated?
            assuming the rate of change from {y0} to {y1} holds, what is the change in {a} in {next}?
            by how many {unit}s will {a} change in {next} at the percentage rate of {y1}?
            what increase or decrease in {a} does the {y1} growth rate imply for {next}?
            """
        ),
    ),
)

# The same shares of steps as in `kinds`.
UNSEEN: Levels = ((_ONE_STEP, 0.58), (_TWO_STEPS, 0.32), (_MORE_STEPS, 0.10))
