"""Butcher tableaus of the explicit Runge-Kutta methods, with their error weights and dense output.

A method with s stages k_1 … k_s is written with one more slope, k_{s+1} = F(t + h, x_1), the derivative at
the end of the step: methods of the first-same-as-last kind need it anyway, and every other method reuses it
as the next step's k_1.

Dense output serves to locate events and to draw trajectories.  The event itself is settled by taking the last
step again, so that the stopping time has the order of the method even where the dense output has a lower one.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

Row = tuple[float, ...]


def _row(*entries: str | int) -> Row:
    """Exact fractions, rounded once."""
    return tuple(float(Fraction(entry)) for entry in entries)


@dataclass(frozen=True)
class ButcherTableau:
    """Coefficients of an explicit Runge-Kutta method.

    Attributes
    ----------
    order
        Order of the solution that is propagated.
    error_order
        Order of the embedded solution it is compared with; ``order`` itself for a method without one.
    nodes
        c_i, one per stage.
    matrix
        a_ij, row i has i - 1 entries.
    weights
        b_i, one per stage.
    error_weights
        b_i minus the embedded weights, one per stage and one for the end slope; all zero for a method without
        an embedded solution.
    interpolant
        Row i holds the coefficients of s, s², … of the polynomial b_i(s), one row per stage and one for the
        end slope: x(t + s h) ≈ x + h Σ b_i(s) k_i.
    stability_limit
        β: |R(z)| ≤ 1 on the real interval [-β, 0].

    Examples
    --------
    >>> from odestop.solvers import DORMAND_PRINCE_5
    >>> DORMAND_PRINCE_5.order, DORMAND_PRINCE_5.error_order, len(DORMAND_PRINCE_5.nodes)
    (5, 4, 6)
    """

    order: int
    error_order: int
    nodes: Row
    matrix: tuple[Row, ...]
    weights: Row
    error_weights: Row
    interpolant: tuple[Row, ...]
    stability_limit: float


def _error_weights(weights: Row, embedded: Row) -> Row:
    """b_i minus the embedded weights, of which the last belongs to the end slope."""
    return tuple(b - e for b, e in zip((*weights, 0.0), embedded, strict=True))


def _hermite_interpolant(weights: Row, *higher: Row) -> tuple[Row, ...]:
    """Interpolant through the states and slopes at both ends, given its coefficients of s⁴, s⁵, ….

    Each higher power s^p enters as s^p - (p-2) s³ + (p-3) s², which vanishes with its derivative at both
    ends.  Without higher powers this is the cubic Hermite interpolant, of order 3 or of the method's order if
    that is lower.
    """
    rows = []
    for index, b in enumerate((*weights, 0.0)):
        first = 1.0 if index == 0 else 0.0
        last = 1.0 if index == len(weights) else 0.0
        coefficients = tuple(row[index] for row in higher)
        square = 3.0 * b - 2.0 * first - last + sum((p - 3) * c for p, c in enumerate(coefficients, start=4))
        cube = first + last - 2.0 * b - sum((p - 2) * c for p, c in enumerate(coefficients, start=4))
        rows.append((first, square, cube, *coefficients))
    return tuple(rows)


_DORMAND_PRINCE_WEIGHTS = _row("35/384", 0, "500/1113", "125/192", "-2187/6784", "11/84")

DORMAND_PRINCE_5 = ButcherTableau(
    order=5,
    error_order=4,
    nodes=_row(0, "1/5", "3/10", "4/5", "8/9", 1),
    matrix=(
        (),
        _row("1/5"),
        _row("3/40", "9/40"),
        _row("44/45", "-56/15", "32/9"),
        _row("19372/6561", "-25360/2187", "64448/6561", "-212/729"),
        _row("9017/3168", "-355/33", "46732/5247", "49/176", "-5103/18656"),
    ),
    weights=_DORMAND_PRINCE_WEIGHTS,
    error_weights=_row("71/57600", 0, "-71/16695", "71/1920", "-17253/339200", "22/525", "-1/40"),
    interpolant=_hermite_interpolant(
        _DORMAND_PRINCE_WEIGHTS,
        _row(
            "-12715105075/11282082432",
            0,
            "87487479700/32700410799",
            "-10690763975/1880347072",
            "701980252875/199316789632",
            "-1453857185/822651844",
            "69997945/29380423",
        ),
    ),
    stability_limit=3.3066,
)
"""Dormand & Prince (1980), 5(4), six stages and the end slope; dense output of order 4 (Shampine, 1986)."""

_TSITOURAS_WEIGHTS = _row(
    "0.09646076681806522952",
    "0.01",
    "0.47988965041449957478",
    "1.37900857410374189319",
    "-3.2900695154360806799",
    "2.32471052409977398242",
)

TSITOURAS_5 = ButcherTableau(
    order=5,
    error_order=4,
    nodes=_row(0, "0.161", "0.327", "0.9", "0.98002554090450968573", 1),
    matrix=(
        (),
        _row("0.161"),
        _row("-0.00848065549235698854", "0.33548065549235698854"),
        _row("2.89715305710549343213", "-6.35944848997507484315", "4.36229543286958141102"),
        _row(
            "5.32586482843925660443",
            "-11.74888356406282787775",
            "7.4955393428898362083",
            "-0.09249506636175524925",
        ),
        _row(
            "5.86145544294642002866",
            "-12.92096931784710929171",
            "8.15936789857615864318",
            "-0.07158497328140099722",
            "-0.02826905039406838291",
        ),
    ),
    weights=_TSITOURAS_WEIGHTS,
    error_weights=_error_weights(
        _TSITOURAS_WEIGHTS,
        _row(
            "0.09468075576583945808",
            "0.00918356554034325310",
            "0.48777052842476157079",
            "1.23429756693047898566",
            "-2.70771234998352545488",
            "1.86662841817058703575",
            "1/66",
        ),
    ),
    interpolant=_hermite_interpolant(
        _TSITOURAS_WEIGHTS,
        _row(
            "-1.0530884977290216",
            "0.1017",
            "2.490627285651252793",
            "-16.54810288924490272",
            "47.37952196281928122",
            "-34.87065786149660974",
            "2.5",
        ),
    ),
    stability_limit=3.5068,
)
"""Tsitouras (2011), 5(4), six stages and the end slope; its own dense output of order 4."""

_BOGACKI_SHAMPINE_WEIGHTS = _row("2/9", "1/3", "4/9")

BOGACKI_SHAMPINE_3 = ButcherTableau(
    order=3,
    error_order=2,
    nodes=_row(0, "1/2", "3/4"),
    matrix=((), _row("1/2"), _row(0, "3/4")),
    weights=_BOGACKI_SHAMPINE_WEIGHTS,
    error_weights=_error_weights(_BOGACKI_SHAMPINE_WEIGHTS, _row("7/24", "1/4", "1/3", "1/8")),
    interpolant=_hermite_interpolant(_BOGACKI_SHAMPINE_WEIGHTS),
    stability_limit=2.5127,
)
"""Bogacki & Shampine (1989), 3(2), three stages and the end slope; cubic Hermite dense output of order 3."""

_PRINCE_DORMAND_WEIGHTS = _row(
    "14005451/335480064",
    0,
    0,
    0,
    0,
    "-59238493/1068277825",
    "181606767/758867731",
    "561292985/797845732",
    "-1041891430/1371343529",
    "760417239/1151165299",
    "118820643/751138087",
    "-528747749/2220607170",
    "1/4",
)

PRINCE_DORMAND_8 = ButcherTableau(
    order=8,
    error_order=7,
    nodes=_row(
        0,
        "1/18",
        "1/12",
        "1/8",
        "5/16",
        "3/8",
        "59/400",
        "93/200",
        "5490023248/9719169821",
        "13/20",
        "1201146811/1299019798",
        1,
        1,
    ),
    matrix=(
        (),
        _row("1/18"),
        _row("1/48", "1/16"),
        _row("1/32", 0, "3/32"),
        _row("5/16", 0, "-75/64", "75/64"),
        _row("3/80", 0, 0, "3/16", "3/20"),
        _row("29443841/614563906", 0, 0, "77736538/692538347", "-28693883/1125000000", "23124283/1800000000"),
        _row(
            "16016141/946692911",
            0,
            0,
            "61564180/158732637",
            "22789713/633445777",
            "545815736/2771057229",
            "-180193667/1043307555",
        ),
        _row(
            "39632708/573591083",
            0,
            0,
            "-433636366/683701615",
            "-421739975/2616292301",
            "100302831/723423059",
            "790204164/839813087",
            "800635310/3783071287",
        ),
        _row(
            "246121993/1340847787",
            0,
            0,
            "-37695042795/15268766246",
            "-309121744/1061227803",
            "-12992083/490766935",
            "6005943493/2108947869",
            "393006217/1396673457",
            "123872331/1001029789",
        ),
        _row(
            "-1028468189/846180014",
            0,
            0,
            "8478235783/508512852",
            "1311729495/1432422823",
            "-10304129995/1701304382",
            "-48777925059/3047939560",
            "15336726248/1032824649",
            "-45442868181/3398467696",
            "3065993473/597172653",
        ),
        _row(
            "185892177/718116043",
            0,
            0,
            "-3185094517/667107341",
            "-477755414/1098053517",
            "-703635378/230739211",
            "5731566787/1027545527",
            "5232866602/850066563",
            "-4093664535/808688257",
            "3962137247/1805957418",
            "65686358/487910083",
        ),
        _row(
            "403863854/491063109",
            0,
            0,
            "-5068492393/434740067",
            "-411421997/543043805",
            "652783627/914296604",
            "11173962825/925320556",
            "-13158990841/6184727034",
            "3936647629/1978049680",
            "-160528059/685178525",
            "248638103/1413531060",
            0,
        ),
    ),
    weights=_PRINCE_DORMAND_WEIGHTS,
    error_weights=_error_weights(
        _PRINCE_DORMAND_WEIGHTS,
        _row(
            "13451932/455176623",
            0,
            0,
            0,
            0,
            "-808719846/976000145",
            "1757004468/5645159321",
            "656045339/265891186",
            "-3867574721/1518517206",
            "465885868/322736535",
            "53011238/667516719",
            "2/45",
            0,
            0,
        ),
    ),
    interpolant=_hermite_interpolant(
        _PRINCE_DORMAND_WEIGHTS,
        _row(
            "-30.0610568289666450593",
            0,
            0,
            0,
            0,
            "-121.4999627731334642623",
            "83.1721004639847717481",
            "9.5724507555993664382",
            "87.8406057677205645007",
            "-17.4152107770762969005",
            "-28.5903289514790976966",
            "81.6630950584341412934",
            "-114.9375291377009418170",
            "50.2558364226176017553",
        ),
        _row(
            "22.1396504998094068976",
            0,
            0,
            0,
            0,
            "116.4422149550342161651",
            "-67.1451318825957197185",
            "-16.5672243527496524646",
            "-89.9916014847245016028",
            "22.6237489648532849093",
            "32.2362340167355370113",
            "-82.1020315488359848644",
            "116.2662185791119533462",
            "-53.9020777466385396792",
        ),
        _row(
            "-6.3448349392860401388",
            0,
            0,
            0,
            0,
            "-39.6107919852202505218",
            "20.3761213808791436958",
            "7.3347098826795362023",
            "32.8801774352459155182",
            "-10.1588990526426760954",
            "-12.5401268098782561200",
            "29.5553001484516038033",
            "-41.7923486424390588923",
            "20.3006925822100825485",
        ),
    ),
    stability_limit=5.1666,
)
"""Prince & Dormand (1981), 8(7), 13 stages; dense output of order 5 from the stages and the end slope."""

EXPLICIT_EULER = ButcherTableau(
    order=1,
    error_order=1,
    nodes=_row(0),
    matrix=((),),
    weights=_row(1),
    error_weights=_row(0, 0),
    interpolant=_hermite_interpolant(_row(1)),
    stability_limit=2.0,
)
"""Forward Euler, without an error estimate; cubic Hermite dense output of order 1."""

_HEUN_WEIGHTS = _row("1/2", "1/2")

HEUN_2 = ButcherTableau(
    order=2,
    error_order=2,
    nodes=_row(0, 1),
    matrix=((), _row(1)),
    weights=_HEUN_WEIGHTS,
    error_weights=_row(0, 0, 0),
    interpolant=_hermite_interpolant(_HEUN_WEIGHTS),
    stability_limit=2.0,
)
"""Heun's explicit trapezoidal rule, without an error estimate; cubic Hermite dense output of order 2."""

_CLASSICAL_WEIGHTS = _row("1/6", "1/3", "1/3", "1/6")

RUNGE_KUTTA_4 = ButcherTableau(
    order=4,
    error_order=4,
    nodes=_row(0, "1/2", "1/2", 1),
    matrix=((), _row("1/2"), _row(0, "1/2"), _row(0, 0, 1)),
    weights=_CLASSICAL_WEIGHTS,
    error_weights=_row(0, 0, 0, 0, 0),
    interpolant=_hermite_interpolant(_CLASSICAL_WEIGHTS),
    stability_limit=2.7853,
)
"""The classical method of Kutta (1901), without an error estimate; cubic Hermite dense output of order 3."""
