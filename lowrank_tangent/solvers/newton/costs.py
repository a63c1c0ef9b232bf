"""The cost model: constants by which Newton's method chooses between ways of doing the same.

The unit is one floating-point operation of a large matrix product in the precision at hand. benchmarks/cost_model.py
measures what can be measured of them on the machine that it runs on.
"""

from __future__ import annotations

# -- Speed of operations --------------------------------------------------------------------

#: Operations of a large matrix product in the time of one of a product with the factors of a layer, or on its smaller
#: side.
SMALL = 2
#: What making an entry of a kernel of stretched features takes, beside two operations for every direction.
ENTRY = 250
#: A product of an n × n matrix with a few columns waits for memory: an entry takes the time of this many operations,
#: and of that many more for every column.
WAIT, COLUMN = 20, 6
#: What calling a dozen NumPy functions costs.
CALL_OVERHEAD = 5e6
#: What factorising an n × n kernel takes for every entry, beyond its n³/3 operations.
CHOLESKY_ENTRY = 700
#: What Γ terms take for every entry of a kernel: for every direction on the smaller side, for every one of the
#: strongest, and whatever the number of them.
PAIR_DIRECTION, PAIR_STRONG, PAIR_ENTRY = 4, 12, 300

# -- Numbers of products that one way saves -------------------------------------------------

#: Products that a kernel of stretched features serves, about.
KERNEL_PRODUCTS = 8
#: Products with the system that it saves to assemble it, before that has to be done anew: beside a mean kernel that
#: knows all of it, beside one that lacks Γ terms, and beside one that also averages over different outputs.
EXACT_PRODUCTS = 1, 4, 40
#: Products that a factor for every class saves, beside a mean kernel.
CLASSWISE_PRODUCTS = 250
#: The same of a descent from B = 0, where there is no Γ term in the preconditioner. Where there is one, it saves the
#: cost of that.
DESCENT_PRODUCTS = 100
#: What the calls of a descent take for every layer.
DESCENT_CALLS = 1.5e9
#: With fewer samples for every direction on the largest smaller side a descent takes more steps, and saves nothing:
#: with a Γ term in the preconditioner, and without.
DESCENT_SAMPLES_PAIRS, DESCENT_SAMPLES = 32, 16
#: Far in the tail of the penalty it saves nothing either. There the alpha of the ridge solution to start from is less
#: than this share of that of the problem, with a Γ term in the preconditioner and without.
DESCENT_SHARE_PAIRS, DESCENT_SHARE = 0.02, 0.001
#: What a Newton step takes in products with B written entry by entry, many of them in single precision; and with B
#: written in the samples in kernels of all samples and in products on the smaller side.
STEP_PRODUCTS = 7
STEP_KERNELS, STEP_SMALL = 4, 10

# -- Sizes ----------------------------------------------------------------------------------

#: Largest number of dual unknowns, and of operations, for which the system is assembled where nothing else helps.
EXACT_UNKNOWNS = 2000
EXACT_OPERATIONS = 1e10
#: Largest number of samples for which n × n kernels are formed, and the largest share of the memory that they may take.
KERNEL_SAMPLES = 12_000
KERNEL_SHARE = 0.25
#: Landmarks for samples whose whole kernel is not formed: as many as cost as much as so many products, no fewer than
#: the second number, and no more than memory is for (their kernel with all samples has that many entries).
LANDMARK_PRODUCTS = 2.0
LEAST_LANDMARKS = 1500
LANDMARK_ENTRIES = 2**28


def skinny_cost(n: int, columns: int) -> float:
    """Cost of an n × n matrix times a few columns."""
    return n**2 * (WAIT + COLUMN * columns)


def stretch_cost(n: int, sides: int) -> float:
    """Cost of the kernel of layers with so many directions on their smaller sides."""
    return n**2 * (2 * sides + ENTRY)


def cholesky_cost(n: int) -> float:
    """Cost of factorising an n × n kernel."""
    return n**2 * (n / 3 + CHOLESKY_ENTRY)


def pair_cost(n: int, sides: int, strong: int) -> float:
    """Cost of the Γ terms of layers with so many directions on their smaller sides, and so many strong ones."""
    return n**2 * (PAIR_DIRECTION * sides + PAIR_STRONG * strong + PAIR_ENTRY)
