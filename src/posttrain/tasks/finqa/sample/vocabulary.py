"""Words of the generated annual reports: companies, sections with their line items, and sentences.

Everything is in FinQA's style: lower case, tokens separated by spaces, no apostrophes. `pages` fills the braces.
"""

from __future__ import annotations

from dataclasses import dataclass

COMPANY_FIRST = tuple(
    """
    allied amber apex arbor atlantic beacon blue bright cascade cedar central coastal copper
    crescent delta eastern ember evergreen falcon first granite great harbor heritage highland
    horizon indigo iron keystone lake liberty lone maple meridian metro mountain national noble
    north northern oak ocean orchard pacific pioneer prairie quarry red ridge river royal sierra
    silver southern standard sterling stone summit sun timber trans tri union united upper valley
    vanguard vista western white willow
    """.split()  # noqa: SIM905
)
COMPANY_SECOND = tuple(
    """
    aerospace airlines bancorp beverage biosciences brands capital chemical communications
    components construction controls devices energy entertainment equipment financial foods
    freight gas health holdings hotels industries instruments insurance labs logistics marine
    materials media medical metals mining motors networks oil packaging paper petroleum
    pharmaceuticals pipeline power products properties rail resources restaurants retail
    semiconductor services shipping software steel stores systems technologies textiles tobacco
    tools water wireless
    """.split()  # noqa: SIM905
)
COMPANY_LAST = ("inc", "corporation", "company", "group", "incorporated", "and subsidiaries", "plc")


@dataclass(frozen=True, slots=True)
class Section:
    """A kind of report section.

    labels: the table's line items. total: the label of their sum, if such a table adds up. rates: line items in
    percent. metrics: amounts in the text. about: completes "the following table ... ". dollars: false where line items
    are counted in something else.
    """

    about: str
    labels: tuple[str, ...]
    total: str | None
    rates: tuple[str, ...]
    metrics: tuple[str, ...]
    dollars: bool = True


def _items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(";"))


SECTIONS = (
    Section(
        "revenue by product line",
        _items(
            "product revenue; service revenue; license revenue; subscription revenue; maintenance"
            " revenue; hardware sales; software sales; consulting fees; royalty income; wholesale"
            " sales; retail sales; online sales; export sales"
        ),
        "total revenue",
        _items("gross margin; revenue growth rate; share of recurring revenue"),
        _items(
            "deferred revenue; sales incentives; contract backlog; unbilled receivables; customer"
            " deposits"
        ),
    ),
    Section(
        "results of its business segments",
        _items(
            "americas segment sales; european segment sales; asia pacific segment sales; "
            "industrial segment sales; consumer segment sales; aerospace segment sales; health "
            "care segment sales; energy segment sales; transportation segment sales; packaging "
            "segment sales; chemicals segment sales; food segment sales"
        ),
        "total segment sales",
        _items("segment operating margin; segment return on assets"),
        _items(
            "intersegment sales; unallocated corporate expenses; segment capital expenditures; "
            "segment goodwill"
        ),
    ),
    Section(
        "operating expenses",
        _items(
            "cost of goods sold; selling and marketing expense; general and administrative "
            "expense; research and development expense; depreciation expense; amortization of "
            "intangible assets; restructuring charges; impairment charges; fuel expense; wages "
            "and benefits; maintenance and repairs; landing fees and rents; professional fees"
        ),
        "total operating expenses",
        _items("operating margin; expense ratio"),
        _items(
            "advertising costs; severance costs; integration costs; legal settlements; insurance "
            "recoveries"
        ),
    ),
    Section(
        "liquidity and cash flows",
        _items(
            "cash provided by operating activities; cash used in investing activities; capital "
            "expenditures; free cash flow; dividends paid; repurchases of common stock; proceeds "
            "from borrowings; repayments of debt; acquisitions net of cash acquired; cash and "
            "cash equivalents; short-term investments; proceeds from asset sales"
        ),
        None,
        _items("cash conversion rate; dividend payout ratio"),
        _items(
            "cash held by foreign subsidiaries; commercial paper outstanding; restricted cash; "
            "available credit"
        ),
    ),
    Section(
        "long-term debt",
        _items(
            "senior notes; senior secured notes; subordinated notes; convertible debentures; term"
            " loan; revolving credit facility; mortgage bonds; capital lease obligations; "
            "industrial revenue bonds; medium-term notes; other debt; floating rate notes"
        ),
        "total debt",
        _items("weighted average interest rate; debt to capital ratio"),
        _items(
            "interest expense; interest paid; debt issuance costs; letters of credit outstanding;"
            " capitalized interest"
        ),
    ),
    Section(
        "income taxes",
        _items(
            "current federal taxes; current state taxes; current foreign taxes; deferred federal "
            "taxes; deferred state taxes; deferred foreign taxes; unrecognized tax benefits; "
            "valuation allowance; deferred tax assets; deferred tax liabilities; tax credits; "
            "interest and penalties"
        ),
        None,
        _items("effective tax rate; state tax rate net of federal benefit; foreign tax rate"),
        _items(
            "income taxes paid; net operating loss carryforwards; undistributed foreign earnings;"
            " tax refunds received"
        ),
    ),
    Section(
        "stock-based compensation",
        _items(
            "stock options granted; stock options exercised; stock options forfeited; restricted "
            "stock units granted; restricted stock units vested; performance shares granted; "
            "shares available for grant; options outstanding; options exercisable; employee stock"
            " purchase plan shares; deferred stock units; stock appreciation rights"
        ),
        None,
        _items("risk-free interest rate; expected volatility; dividend yield"),
        _items(
            "stock-based compensation expense; unrecognized compensation cost; intrinsic value of"
            " options exercised; tax benefit from stock awards; fair value of shares vested"
        ),
        dollars=False,
    ),
    Section(
        "pension and retirement plans",
        _items(
            "service cost; interest cost; expected return on plan assets; amortization of prior "
            "service cost; recognized actuarial loss; projected benefit obligation; accumulated "
            "benefit obligation; fair value of plan assets; benefits paid; employer "
            "contributions; participant contributions; settlement losses"
        ),
        None,
        _items("discount rate; rate of compensation increase; expected long-term return on assets"),
        _items(
            "contributions to the 401(k) plan; multiemployer plan contributions; postretirement "
            "benefit cost"
        ),
    ),
    Section(
        "property and equipment",
        _items(
            "land; buildings and improvements; machinery and equipment; leasehold improvements; "
            "furniture and fixtures; computer software; vehicles; construction in progress; "
            "aircraft and engines; railroad track; production tooling; office equipment"
        ),
        "total property and equipment",
        _items("share of leased assets; capacity utilization"),
        _items(
            "depreciation and amortization; repair costs; gains on asset sales; asset retirement "
            "obligations"
        ),
    ),
    Section(
        "loans and credit quality",
        _items(
            "commercial loans; commercial real estate loans; residential mortgage loans; home "
            "equity loans; credit card loans; automobile loans; student loans; construction "
            "loans; nonperforming loans; net charge-offs; allowance for loan losses; foreclosed "
            "assets"
        ),
        None,
        _items("net interest margin; charge-off rate; tier 1 capital ratio"),
        _items(
            "provision for credit losses; net interest income; brokered deposits; noninterest "
            "income"
        ),
    ),
    Section(
        "insurance operations",
        _items(
            "gross premiums written; net premiums earned; net investment income; losses and loss "
            "adjustment expenses; policy acquisition costs; underwriting expenses; catastrophe "
            "losses; prior year reserve development; reinsurance recoverables; unearned premiums;"
            " fee income; claims paid"
        ),
        None,
        _items("loss ratio; combined ratio; retention rate"),
        _items(
            "hurricane losses; reserve increases; asbestos payments; reinsurance premiums ceded"
        ),
    ),
    Section(
        "inventories and receivables",
        _items(
            "raw materials; work in process; finished goods; spare parts; trade receivables; "
            "allowance for doubtful accounts; notes receivable; income tax receivable; prepaid "
            "expenses; supplies inventory; contract assets; vendor rebates"
        ),
        None,
        _items("inventory turnover growth; bad debt rate"),
        _items("inventory write-downs; receivables sold; consignment inventory; bad debt expense"),
    ),
    Section(
        "energy production and volumes",
        _items(
            "crude oil production; natural gas production; coal shipments; electricity sales "
            "volume; refinery throughput; proved reserves; pipeline volumes; retail fuel volumes;"
            " carloads; ethanol production; barrels sold; tons mined"
        ),
        None,
        _items("average utilization rate; market share"),
        _items(
            "exploration costs; environmental remediation costs; drilling costs; purchased power "
            "costs"
        ),
        dollars=False,
    ),
    Section(
        "goodwill and intangible assets",
        _items(
            "customer relationships; trade names; patents; developed technology; franchise "
            "rights; noncompete agreements; broadcast licenses; goodwill; in-process research and"
            " development; favorable leases; water rights; software licenses"
        ),
        None,
        _items("share of finite-lived assets; long-term growth rate"),
        _items(
            "amortization expense; contingent consideration; acquisition costs; purchase price "
            "adjustments"
        ),
    ),
)

# Line items with negative amounts, in any section.
DEDUCTIONS = (
    "eliminations",
    "other adjustments",
    "foreign currency translation",
    "hedging losses",
    "reclassifications",
    "accumulated losses",
    "intercompany eliminations",
    "discontinued operations",
)

# Tables whose rows are years: (what the page is about, columns with their totals).
SCHEDULES = (
    (
        "future minimum lease payments",
        _items("operating lease payments; capital lease payments; sublease income"),
        _items("rental expense; contingent rentals; lease termination costs; sublease receipts"),
    ),
    (
        "aggregate maturities of debt",
        _items("senior note maturities; term loan maturities; debt maturities"),
        _items("interest expense; debt issuance costs; credit facility fees; interest paid"),
    ),
    (
        "expected benefit payments",
        _items(
            "pension benefit payments; postretirement benefit payments; medicare subsidy receipts"
        ),
        _items("pension expense; employer contributions; plan settlement costs; actuarial losses"),
    ),
    (
        "estimated amortization expense",
        _items("intangible amortization; software amortization; deferred cost amortization"),
        _items("amortization expense; impairment charges; acquisition costs; patent costs"),
    ),
    (
        "contractual obligations",
        _items("purchase commitments; royalty commitments; capital commitments"),
        _items(
            "minimum royalties paid; cancellation fees; purchases under contracts; penalty payments"
        ),
    ),
)

INTRODUCTIONS = (
    "the following table summarizes {about} of {company} for the years shown ( in {units} ) .",
    "{company} reported the following {about} ( in {units} ) : .",
    "the table below presents {about} for {company} , in {units} of dollars or shares as "
    "applicable .",
    "information about {about} of {company} is set forth below ( in {units} ) .",
    "notes to consolidated financial statements {company} {about} consisted of the following ( in"
    " {units} ) : .",
    "selected data on {about} of {company} are shown in the following table ( amounts in {units} "
    ") .",
)

AMOUNT_ONE = (
    "{metric} was $ {v} {unit} in {y} .",
    "during {y} , the company recorded {metric} of $ {v} {unit} .",
    "for the year ended december 31 , {y} , {metric} amounted to $ {v} {unit} .",
    "in {y} , {metric} totaled $ {v} {unit} , in line with the expectations of management .",
    "the company had {metric} of $ {v} {unit} for fiscal {y} .",
)
AMOUNT_TWO = (
    "{metric} was $ {v1} {unit} in {y1} compared with $ {v0} {unit} in {y0} .",
    "{metric} was $ {v1} {unit} and $ {v0} {unit} for the years ended december 31 , {y1} and {y0}"
    " , respectively .",
    "the company recorded {metric} of $ {v1} {unit} and $ {v0} {unit} in {y1} and {y0} , "
    "respectively .",
    "{metric} changed from $ {v0} {unit} in {y0} to $ {v1} {unit} in {y1} , mainly because of "
    "volume .",
)
AMOUNT_THREE = (
    "{metric} was $ {v2} {unit} , $ {v1} {unit} and $ {v0} {unit} in {y2} , {y1} and {y0} , "
    "respectively .",
    "for fiscal {y2} , {y1} and {y0} , {metric} was $ {v2} {unit} , $ {v1} {unit} and $ {v0} "
    "{unit} , respectively .",
)
SHARE_OF = (
    "approximately {p} of {label} in {y} came from {who} .",
    "{who} accounted for {p} of {label} in {y} .",
    "in {y} , {p} of {label} was attributable to {who} .",
    "of {label} in {y} , about {p} related to {who} .",
)
GROWTH_OF = (
    "management expects {label} to grow by {p} per year after {y} .",
    "the long-range plan assumes that {label} will rise {p} annually from the level of {y} .",
    "the company projects annual growth in {label} of {p} following {y} .",
)
REPURCHASE = (
    "during {y} , the company repurchased {n} shares of its common stock at an average price of $"
    " {price} per share .",
    "the company bought back {n} shares in {y} , paying an average of $ {price} per share .",
    "under the repurchase program , {n} shares were acquired in {y} for an average of $ {price} "
    "each .",
)
WHO = (
    "customers outside the united states",
    "the three largest customers",
    "government contracts",
    "the european operations",
    "recently acquired businesses",
    "joint ventures",
    "discontinued product lines",
    "the canadian subsidiary",
    "related parties",
    "the fourth quarter",
)
DISTRACTORS = (
    "in the fourth quarter of {y} , {label} was $ {v} {unit} , reflecting seasonal demand .",
    "a competitor reported {label} of $ {v} {unit} for {y} .",
    "the company employed approximately {n} people at december 31 , {y} .",
    "in {y} the company closed {small} facilities and opened {small2} new locations .",
    "the revised estimate increased {label} by $ {v} {unit} for periods before {before} .",
    "a one percent change in assumptions would change {label} by about $ {v} {unit} .",
    "the board authorized a program of up to $ {v} {unit} , of which {p} had been used by the end"
    " of {y} .",
    "the agreement expires in {later} and may be extended for {small} additional years .",
)
PLAIN = (
    "see note {small} to the consolidated financial statements for further discussion .",
    "these amounts are included in the consolidated statements of income .",
    "actual results could differ from these estimates , and the differences could be material .",
    "the increase was partially offset by unfavorable foreign currency translation .",
    "certain prior year amounts have been reclassified to conform to the current presentation .",
    "the company believes that its sources of liquidity are adequate for the foreseeable future .",
    "management reviews these assumptions each year and updates them when conditions change .",
    "there were no other significant changes during the periods presented .",
    "the company operates in highly competitive markets , and prices are affected by supply and "
    "demand .",
    "no individual item is material to the financial position of the company .",
    "the decline primarily reflects lower volumes , offset in part by higher prices .",
    "the amounts above exclude the effect of discontinued operations .",
)
