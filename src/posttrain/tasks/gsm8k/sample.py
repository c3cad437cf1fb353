"""Word problems in GSM8K's form, generated from a seed: the task's default without a network.

    splits = generate(seed=0, sizes={"train": 2250, "test": 500})      rows with `question` and `answer`

There are fourteen kinds of stories of two to five steps, with several wordings, whole numbers, prices, percentages and
fractions, and sentences whose number is not needed. Every calculation is annotated, and right by construction. No
question occurs twice, within a split or between splits. The same seed gives the same bytes.

Left out: the difficulty of the real problems, their several thousand kinds of stories, and words for numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

from posttrain.tasks.gsm8k.arithmetic import evaluate, format_number
from posttrain.tasks.gsm8k.reading import MARK

Row = dict[str, str]

NAMES = (
    *("Ava", "Ben", "Carla", "Dan", "Elena", "Felix", "Grace", "Hugo", "Ines", "Jonas", "Kira", "Leo"),
    *("Mina", "Noah", "Olga", "Pablo", "Quinn", "Rosa", "Sam", "Tara", "Uma", "Victor", "Wendy", "Yara"),
    *("Amir", "Bella", "Cyrus", "Dina", "Ethan", "Farah", "Gina", "Hank", "Ivy", "Jack", "Karen", "Luis"),
)  # fmt: skip
THINGS = (
    *("pencils", "stickers", "marbles", "cookies", "apples", "shells", "cards", "stamps", "beads"),
    *("buttons", "candles", "photos", "badges", "tomatoes", "oranges", "cupcakes", "coins", "tickets"),
)  # fmt: skip
BOXES = ("boxes", "bags", "jars", "baskets", "packs", "drawers", "crates", "trays")
GOODS = (
    *("notebooks", "shirts", "mugs", "plants", "books", "scarves", "puzzles", "lamps", "pillows"),
    *("sandwiches", "posters", "toy cars", "caps", "plates", "balls", "brushes", "towels", "vases"),
)  # fmt: skip
PEOPLE = ("friends", "cousins", "classmates", "neighbors", "children")
TIMES = {2: "twice", 3: "three times", 4: "four times", 5: "five times"}
PARTS = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth"}


class Story:
    """A problem under construction: the sentences of its question, the lines of its solution, the last result."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.sentences: list[str] = []
        self.lines: list[str] = []
        self.result = ""
        self.name, self.other, self.third = rng.sample(NAMES, 3)

    def tell(self, *wordings: str) -> None:
        """Add one of the wordings to the question."""
        self.sentences.append(self.rng.choice(wordings))

    def work(self, expression: str, *wordings: str) -> str:
        """Add a line to the solution, with the calculation in place of `@`, and return the result."""
        self.result = format_number(evaluate(expression))
        shown = self.rng.choice((expression, spaced(expression)))
        line = self.rng.choice(wordings)
        money = "$" if "$@" in line else ""
        note = f"{shown} = {money}<<{expression}={self.result}>>{self.result}"
        self.lines.append(line.replace(f"{money}@", note))
        return self.result

    def whole(self, low: int, high: int, step: int = 1) -> int:
        return self.rng.randrange(low, high + 1, step)

    def price(self) -> str:
        """A price in dollars, mostly whole, else with cents in two digits."""
        dollars = self.whole(2, 24)
        return f"{dollars}{self.rng.choice(('', '', '', '.50', '.25', '.75'))}"

    def pick(self, words: Sequence[str]) -> str:
        return self.rng.choice(words)

    def row(self) -> Row:
        sentences = list(self.sentences)
        if self.rng.random() < 0.4:
            sentences.insert(self.rng.randrange(1, len(sentences)), self._aside())
        answer = [*self.lines, f"{MARK}{self.result}"]
        return {"question": " ".join(sentences), "answer": "\n".join(answer)}

    def _aside(self) -> str:
        """A sentence whose number is not needed."""
        number = self.whole(3, 60)
        return self.pick(
            (
                f"{self.name} is {number} years old.",
                f"It takes {self.name} {number} minutes to walk home.",
                f"{self.other} has done this for {number} weeks.",
                f"The place is {number} miles from the city.",
                f"Last year there were {number} of them in town.",
                f"{self.third} has known {self.name} for {number} months.",
            )
        )


def spaced(expression: str) -> str:
    """The expression with spaces around its operators: 48+24 as 48 + 24."""
    return "".join(f" {sign} " if sign in "+-*/" else sign for sign in expression)


def make_row(rng: Random) -> Row:
    """One problem of a random kind."""
    story = Story(rng)
    rng.choice(KINDS)(story)
    return story.row()


def generate(seed: int, sizes: Mapping[str, int]) -> dict[str, list[Row]]:
    """Rows of each split; `sizes` maps split names to numbers of rows."""
    asked: set[str] = set()
    splits: dict[str, list[Row]] = {}
    for split, size in sorted(sizes.items()):
        rng = Random(f"{seed}/{split}")
        splits[split] = []
        while len(splits[split]) < size:
            row = make_row(rng)
            if row["question"] not in asked:
                asked.add(row["question"])
                splits[split].append(row)
    return splits


# ------------------------------------------------------------------------------- kinds of story


def _containers(s: Story) -> None:
    """Things in several containers, then one or two changes."""
    thing, box = s.pick(THINGS), s.pick(BOXES)
    count, each = s.whole(3, 15), s.whole(4, 24)
    s.tell(
        f"{s.name} has {count} {box} with {each} {thing} in each.",
        f"There are {each} {thing} in each of {s.name}'s {count} {box}.",
    )
    left = s.work(
        f"{count}*{each}",
        f"{s.name} starts with @ {thing}.",
        f"In the {box} there are @ {thing}.",
    )
    for change in s.rng.sample((_given_away, _found, _sold_part), s.whole(1, 2)):
        left = change(s, thing, left)
    shared = [people for people in range(2, 13) if int(left) % people == 0 and int(left) > people]
    if shared and s.rng.random() < 0.5:
        people, who = s.pick([str(number) for number in shared]), s.pick(PEOPLE)
        s.tell(f"Then {s.name} shares the rest equally among {people} {who}.")
        s.tell(f"How many {thing} does each of them get?")
        s.work(f"{left}/{people}", f"Each of them gets @ {thing}.", f"That is @ {thing} each.")
    else:
        s.tell(f"How many {thing} does {s.name} have now?", f"How many {thing} are left?")


def _given_away(s: Story, thing: str, left: str) -> str:
    gone = s.whole(1, max(1, int(left) // 2))
    s.tell(f"{s.name} gives {gone} of them to {s.other}.", f"{s.other} takes {gone} {thing}.")
    return s.work(f"{left}-{gone}", f"After that there are @ {thing}.", f"That leaves @ {thing}.")


def _found(s: Story, thing: str, left: str) -> str:
    more = s.whole(3, 40)
    s.tell(f"{s.third} brings {more} more {thing}.", f"{s.name} finds another {more} {thing}.")
    return s.work(f"{left}+{more}", f"Now there are @ {thing}.", f"With these it makes @ {thing}.")


def _sold_part(s: Story, thing: str, left: str) -> str:
    fitting = [part for part in PARTS if int(left) % part == 0 and int(left) > part]
    if not fitting:
        return _found(s, thing, left)
    part = s.rng.choice(fitting)
    s.tell(f"{s.name} sells {PARTS[part]} of the {thing} that are there.")
    sold = s.work(f"{left}/{part}", f"{s.name} sells @ {thing}.", f"The part sold is @ {thing}.")
    return s.work(f"{left}-{sold}", f"There are @ {thing} left.", f"What remains is @ {thing}.")


def _shopping(s: Story) -> None:
    """A purchase of two kinds of goods, and the change."""
    first, second = s.rng.sample(GOODS, 2)
    n, m, p, q = s.whole(2, 8), s.whole(2, 6), s.price(), s.price()
    s.tell(
        f"{s.name} buys {n} {first} for ${p} each and {m} {second} for ${q} each.",
        f"At the market {s.name} gets {n} {first} at ${p} apiece and {m} {second} at ${q} apiece.",
    )
    a = s.work(f"{n}*{p}", f"The {first} cost $@.", f"{s.name} pays $@ for the {first}.")
    b = s.work(f"{m}*{q}", f"The {second} cost $@.", f"{s.name} pays $@ for the {second}.")
    total = s.work(f"{a}+{b}", "Together that is $@.", "The whole bill is $@.")
    if s.rng.random() < 0.4:
        off = s.whole(1, 4)
        s.tell(f"A coupon takes ${off} off the bill.")
        total = s.work(f"{total}-{off}", "With the coupon it is $@.")
    if s.rng.random() < 0.6:
        paid = next(note for note in (50, 100, 200, 500, 1000) if note > float(total))
        s.tell(f"{s.name} pays with ${paid}.", f"{s.name} gives the cashier ${paid}.")
        s.tell("How many dollars of change are due?", f"How much change does {s.name} get?")
        s.work(f"{paid}-{total}", f"{s.name} gets $@ back.", "The change is $@.")
    else:
        s.tell("How much is the bill, in dollars?", f"How many dollars does {s.name} spend?")


def _discount(s: Story) -> None:
    """Several goods at a discount in percent."""
    thing, price = s.pick(GOODS), s.whole(20, 200, 20)
    percent, count = s.whole(5, 50, 5), s.whole(2, 9)
    s.tell(
        f"A shop sells {thing} for ${price} each, and today they are {percent}% off.",
        f"The usual price of {thing} is ${price} each, but there is a {percent}% discount.",
    )
    off = s.work(f"{price}*{percent}/100", "The discount is $@ each.", "Each is reduced by $@.")
    now = s.work(f"{price}-{off}", "So one costs $@.", "The new price is $@.")
    s.tell(f"{s.name} buys {count} of them.", f"{s.name} wants {count} of them for a party.")
    if s.rng.random() < 0.5:
        s.tell(f"How many dollars does {s.name} pay?", "How much is that in dollars?")
        s.work(f"{now}*{count}", f"For {count} of them it is $@.", f"{s.name} pays $@.")
        return
    s.tell(f"How many dollars does {s.name} save in all?", "How much is saved, in dollars?")
    full = s.work(f"{price}*{count}", "Without discount it is $@.", "At full price that is $@.")
    paid = s.work(f"{now}*{count}", "With discount it is $@.", f"{s.name} pays $@.")
    s.work(f"{full}-{paid}", f"{s.name} saves $@.", "The saving is $@.")


def _wages(s: Story) -> None:
    """Hourly pay, and what is left of it."""
    pay, hours, days = s.whole(9, 32), s.whole(2, 9), s.whole(2, 6)
    s.tell(
        f"{s.name} earns ${pay} an hour and works {hours} hours a day, {days} days a week.",
        f"{s.name} works {days} days a week for {hours} hours, at ${pay} per hour.",
    )
    day = s.work(f"{pay}*{hours}", "A day brings $@.", f"{s.name} earns $@ a day.")
    week = s.work(f"{day}*{days}", "A week brings $@.", f"In a week {s.name} earns $@.")
    spent = s.whole(10, max(10, int(week) // 2))
    s.tell(f"Food and rent cost ${spent} a week.", f"Each week {s.name} spends ${spent}.")
    left = s.work(f"{week}-{spent}", "Of that $@ is left each week.", f"{s.name} keeps $@ a week.")
    if s.rng.random() < 0.6:
        weeks = s.whole(2, 12)
        s.tell(f"How many dollars does {s.name} save in {weeks} weeks?")
        s.work(f"{left}*{weeks}", f"In {weeks} weeks it is $@.", f"{s.name} saves $@.")
    else:
        s.tell(f"How many dollars does {s.name} keep each week?")


def _journey(s: Story) -> None:
    """A journey in two stretches at two speeds."""
    v, w, a, b = s.whole(20, 70, 5), s.whole(20, 70, 5), s.whole(2, 7), s.whole(2, 7)
    way = s.pick(("drives", "rides", "travels"))
    s.tell(
        f"{s.name} {way} for {a} hours at {v} miles per hour and for {b} hours at {w} miles per hour.",
        f"{s.name} {way} at {v} miles per hour for {a} hours, then at {w} miles per hour for {b} hours.",
    )
    one = s.work(f"{a}*{v}", "The first part is @ miles.", f"First {s.name} covers @ miles.")
    two = s.work(f"{b}*{w}", "The second part is @ miles.", f"Then {s.name} covers @ miles.")
    total = s.work(f"{one}+{two}", "Together these are @ miles.", "The whole way is @ miles.")
    if s.rng.random() < 0.6:
        longer = int(total) + s.whole(10, 200)
        s.tell(f"The whole trip is {longer} miles.", f"The goal is {longer} miles from the start.")
        s.tell("How many miles are left?", f"How many more miles must {s.name} go?")
        s.work(f"{longer}-{total}", "There are @ miles left.", "The rest is @ miles.")
    else:
        s.tell(f"How many miles does {s.name} cover?")


def _comparison(s: Story) -> None:
    """Three people, each compared with the one before."""
    thing, count, times = s.pick(THINGS), s.whole(6, 60), s.rng.choice(list(TIMES))
    s.tell(f"{s.name} has {count} {thing}.", f"{s.name} collected {count} {thing}.")
    s.tell(
        f"{s.other} has {TIMES[times]} as many.",
        f"{s.other} has {TIMES[times]} as many {thing} as {s.name}.",
    )
    second = s.work(f"{count}*{times}", f"{s.other} has @ {thing}.")
    apart = s.whole(2, 30)
    more = int(second) <= apart or s.rng.random() < 0.5
    s.tell(f"{s.third} has {apart} {'more' if more else 'fewer'} than {s.other}.")
    third = s.work(f"{second}{'+' if more else '-'}{apart}", f"{s.third} has @ {thing}.")
    if s.rng.random() < 0.7:
        s.tell(f"How many {thing} do they have altogether?", f"How many {thing} is that in all?")
        s.work(f"{count}+{second}+{third}", f"Altogether they have @ {thing}.", f"It is @ {thing}.")
    else:
        s.tell(f"How many {thing} do {s.name} and {s.third} have together?")
        s.work(f"{count}+{third}", f"The two of them have @ {thing}.", f"It is @ {thing}.")


def _average(s: Story) -> None:
    """A mean to be reached with the last of several."""
    tests = s.whole(3, 5)
    scores = [s.whole(60, 95) for _ in range(tests - 1)]
    goal = s.whole(max(70, max(scores) - 8), 96)
    told = ", ".join(map(str, scores[:-1])) + f" and {scores[-1]}"
    s.tell(
        f"{s.name} scored {told} points in the first tests.", f"{s.name} has {told} points so far."
    )
    s.tell(f"After {tests} tests of equal weight {s.name} wants an average of {goal} points.")
    s.tell(
        "How many points must the last test bring?", "How many points are needed in the last one?"
    )
    needed = s.work(f"{goal}*{tests}", "All tests together must bring @ points.")
    have = s.work("+".join(map(str, scores)), "So far there are @ points.")
    s.work(f"{needed}-{have}", "The last test must bring @ points.", "Still needed are @ points.")


def _ages(s: Story) -> None:
    """Ages now and later."""
    age, apart, times, later = s.whole(4, 20), s.whole(2, 15), s.rng.choice([2, 3]), s.whole(2, 20)
    s.tell(f"{s.name} is {age} years old.", f"This year {s.name} turns {age}.")
    s.tell(f"{s.other} is {apart} years older than {s.name}.")
    other = s.work(f"{age}+{apart}", f"{s.other} is @ years old.")
    s.tell(f"{s.third} is {TIMES[times]} as old as {s.other}.")
    third = s.work(f"{other}*{times}", f"{s.third} is @ years old.", f"So {s.third} is @.")
    s.tell(f"How old will {s.third} be in {later} years?")
    s.work(f"{third}+{later}", f"In {later} years {s.third} will be @.")


def _recipe(s: Story) -> None:
    """A recipe for more people."""
    cups, servings, times = s.whole(2, 9), s.whole(2, 8), s.whole(2, 9)
    guests, what = servings * times, s.pick(("flour", "milk", "rice", "sugar", "oats", "broth"))
    s.tell(
        f"A recipe for {servings} people needs {cups} cups of {what}.",
        f"To serve {servings} people, {s.name} needs {cups} cups of {what}.",
    )
    s.tell(f"{s.name} cooks for {guests} people.", f"There will be {guests} people at the table.")
    s.work(f"{guests}/{servings}", "The recipe is made @ times.", "That is @ times the recipe.")
    needed = s.work(f"{times}*{cups}", f"It takes @ cups of {what}.", f"{s.name} needs @ cups.")
    have = s.whole(1, int(needed) - 1)
    s.tell(f"{s.name} already has {have} cups.", f"There are {have} cups of {what} in the kitchen.")
    more = s.work(f"{needed}-{have}", "Still missing are @ cups.", f"{s.name} has to buy @ cups.")
    if s.rng.random() < 0.4:
        cost = s.price()
        s.tell(f"A cup of {what} costs ${cost}.")
        s.tell("How many dollars do the missing cups cost?")
        s.work(f"{more}*{cost}", "They cost $@.", "That makes $@.")
    else:
        s.tell(f"How many cups of {what} must {s.name} buy?")


def _saving(s: Story) -> None:
    """Saving up for something."""
    weekly, weeks, start = s.whole(5, 40), s.whole(3, 15), s.whole(10, 120, 5)
    thing = s.pick(("a bicycle", "a guitar", "a tent", "a camera", "a telescope", "a skateboard"))
    s.tell(f"{s.name} has ${start} and saves ${weekly} a week for {thing}.")
    saved = s.work(f"{weekly}*{weeks}", f"In {weeks} weeks {s.name} saves $@.")
    total = s.work(f"{start}+{saved}", "With the money from before it is $@.", "In all it is $@.")
    price = int(total) + s.whole(5, 150, 5)
    s.tell(f"It costs ${price}.", f"The price of {thing} is ${price}.")
    s.tell(f"How many dollars are missing after {weeks} weeks?")
    s.work(f"{price}-{total}", "Still missing is $@.", f"{s.name} needs $@ more.")


def _farm(s: Story) -> None:
    """Daily produce, of which some is kept and the rest is sold."""
    thing = s.pick(("eggs", "liters of milk", "jars of honey", "loaves", "pots of jam"))
    daily, kept, price, days = s.whole(12, 60), s.whole(2, 10), s.whole(2, 9), s.whole(3, 14)
    s.tell(f"{s.name}'s farm makes {daily} {thing} a day.", f"{s.name} gets {daily} {thing} a day.")
    s.tell(f"The family keeps {kept} of them and sells the rest for ${price} each.")
    rest = s.work(f"{daily}-{kept}", f"They sell @ {thing} a day.", "Each day @ are for sale.")
    income = s.work(f"{rest}*{price}", "This brings $@ a day.", "A day's income is $@.")
    s.tell(f"How many dollars does this bring in {days} days?")
    s.work(f"{income}*{days}", f"In {days} days it is $@.", f"{days} days bring $@.")


def _reading(s: Story) -> None:
    """A book read at one pace, then at another."""
    pace, days, later, rest = s.whole(8, 40), s.whole(3, 9), s.whole(6, 36), s.whole(3, 12)
    pages = pace * days + later * rest
    s.tell(f"{s.name} reads a book of {pages} pages.", f"A book has {pages} pages.")
    s.tell(f"{s.name} reads {pace} pages a day for {days} days.")
    read = s.work(f"{pace}*{days}", f"{s.name} reads @ pages first.", "That is @ pages so far.")
    left = s.work(f"{pages}-{read}", "There are @ pages left.", "Still unread are @ pages.")
    if s.rng.random() < 0.5:
        s.tell(f"How many pages a day must {s.name} read to finish in {rest} more days?")
        s.work(f"{left}/{rest}", "It takes @ pages a day.", "Each day needs @ pages.")
    else:
        s.tell(f"At {later} pages a day, how many more days does the rest take?")
        s.work(f"{left}/{later}", "The rest takes @ days.", "It needs @ days.")


def _theater(s: Story) -> None:
    """Rows of seats, of which a share is taken."""
    rows, seats, percent, price = (
        s.whole(5, 20, 5),
        s.whole(8, 24, 4),
        s.whole(20, 80, 20),
        s.whole(4, 18),
    )
    s.tell(
        f"A theater has {rows} rows with {seats} seats each.",
        f"A hall has {rows} rows of {seats} seats.",
    )
    total = s.work(f"{rows}*{seats}", "There are @ seats.", "The seats are @ in all.")
    s.tell(
        f"On Friday {percent}% of the seats are sold.", f"{s.name} sells {percent}% of the seats."
    )
    sold = s.work(f"{total}*{percent}/100", "Of these @ are sold.", "That is @ sold seats.")
    if s.rng.random() < 0.5:
        s.tell(f"A ticket costs ${price}.")
        s.tell("How many dollars do the tickets bring?")
        s.work(f"{sold}*{price}", "They bring $@.", "The income is $@.")
    else:
        s.tell("How many seats stay empty?")
        s.work(f"{total}-{sold}", "Empty are @ seats.", "There are @ empty seats.")


def _classes(s: Story) -> None:
    """A share of a group, and half of the others."""
    part, other = s.rng.choice([3, 4, 5]), s.rng.choice([2, 3])
    total = part * other * (part - 1) * s.whole(1, 12)
    way, second = s.rng.sample(("by bus", "on foot", "by bike", "by train", "by car"), 2)
    s.tell(f"A school has {total} students.", f"There are {total} students in the school.")
    s.tell(
        f"Of these, {PARTS[part]} come {way}.", f"{PARTS[part].capitalize()} of them come {way}."
    )
    first = s.work(f"{total}/{part}", f"There are @ students who come {way}.")
    rest = s.work(f"{total}-{first}", "The others are @ students.", "That leaves @ students.")
    s.tell(f"Of the others, {PARTS[other]} come {second}.")
    s.tell(f"How many students come {second}?")
    s.work(f"{rest}/{other}", f"There are @ students who come {second}.", f"So @ come {second}.")


KINDS: tuple[Callable[[Story], None], ...] = (
    *(_containers, _containers, _shopping, _discount, _wages, _journey, _comparison, _average),
    *(_ages, _recipe, _saving, _farm, _reading, _theater, _classes),
)  # fmt: skip
