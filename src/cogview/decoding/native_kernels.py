"""Kernels of decoding on a CPU, compiled on the user's machine by Numba: linear maps, attention, norms.

All but the norms are sums of weighted rows of a table. Of a linear map the table is a part of the transposed weight, of
scores a page of transposed keys, of attention its values. Here a sum stays in vector registers while rows stream by,
and each row of the table serves several sums. A sum goes through its rows one by one, whatever else is summed beside
it. So its bits do not depend on the batch or on the number of threads.

Arrays are flat, since indices of two dimensions cost more than they are worth. In one file, since Numba's cache of
compiled code does not notice changes elsewhere.

Letters of the shapes: n tokens or rows, i inputs, o outputs of a linear map, d width, h heads, e channels, u units.
"""

# Kernels have Numba's types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

VECTOR = 16
"""Numbers of a vector: one AVX-512 register, two of AVX2 or four of NEON."""

PLACEMENTS = ("sandwich", "pre", "post")
"""Of norms, by the number that `run_blocks` takes."""
_SANDWICH, _, _POST = range(3)

_FEW_ROWS = 4
"""Rows whose norms take one thread no longer than several take to meet."""

MOST_SUMS = 6
"""Sums that share a row of the table: as many as AVX2's 16 registers hold."""

_BLOCK = 4
"""Vectors of outputs that a thread computes at a time, from as many streams of weights."""

_OPTIONS = {"nogil": True, "error_model": "numpy", "boundscheck": False}
_FLOATS = ir.VectorType(ir.FloatType(), VECTOR)
_CONTRACT = ("contract",)  # multiply and add in one instruction, which rounds once

_ZERO, _ONE, _HALF, _EIGHT = (np.float32(number) for number in (0, 1, 0.5, 8))
_LOWEST = np.float32(-np.inf)


def _load(builder, pointer, kind):
    """Load a vector of the table as floats: int8, bfloat16 (as int16), float16 (as uint16) or float32."""
    stored = {
        types.int8: ir.IntType(8),
        types.int16: ir.IntType(16),
        types.uint16: ir.HalfType(),
        types.float32: ir.FloatType(),
    }[kind]
    vector = builder.load(builder.bitcast(pointer, ir.VectorType(stored, VECTOR).as_pointer()))
    vector.align = kind.bitwidth // 8
    if kind == types.int8:
        return builder.sitofp(vector, _FLOATS)
    if kind == types.uint16:
        return builder.fpext(vector, _FLOATS)
    if kind == types.int16:
        words = ir.VectorType(ir.IntType(32), VECTOR)
        shifted = builder.shl(builder.zext(vector, words), ir.Constant(words, [16] * VECTOR))
        return builder.bitcast(shifted, _FLOATS)
    return vector


def _adder(num_sums, num_vectors):
    """Return the function that adds weighted rows of a table to sums, `num_vectors` of each.

    Its arguments are (weights, first, stride), (table, first, row_stride, vector_stride), the number of rows and
    (sums, first, stride). For each s and v it adds to the vector at `sums[first + s * stride + v * VECTOR]` the vectors
    at `table[first + row * row_stride + v * vector_stride]` times `weights[first + s * stride + row]`.
    """

    @intrinsic
    def add_rows(_context, weights, table, num_rows, sums):
        signature = types.void(weights, table, num_rows, sums)

        def generate(context, builder, signature, arguments):
            def part(index):
                """Return the pointer of an array, and the numbers beside it."""
                array, *numbers = cgutils.unpack_tuple(builder, arguments[index])
                kind = signature.args[index][0]
                return context.make_array(kind)(context, builder, array).data, *numbers

            def number(value):
                return ir.Constant(num_rows.type, value)

            def start_of(pointer, first, stride, times):
                return builder.gep(pointer, [builder.add(first, builder.mul(stride, number(times)))])

            weights, first_weight, weight_stride = part(0)
            table, first_row, row_stride, vector_stride = part(1)
            num_rows = arguments[2]
            sums, first_sum, sum_stride = part(3)
            every = [(s, v) for s in range(num_sums) for v in range(num_vectors)]
            places, registers = {}, {}
            for s, v in every:
                place = builder.gep(start_of(sums, first_sum, sum_stride, s), [number(v * VECTOR)])
                places[s, v] = builder.bitcast(place, _FLOATS.as_pointer())
                registers[s, v] = cgutils.alloca_once(builder, _FLOATS)
                vector = builder.load(places[s, v])
                vector.align = 4
                builder.store(vector, registers[s, v])
            rows = [start_of(table, first_row, vector_stride, v) for v in range(num_vectors)]
            starts = [start_of(weights, first_weight, weight_stride, s) for s in range(num_sums)]
            undefined = ir.Constant(_FLOATS, ir.Undefined)
            lanes = ir.Constant(ir.VectorType(ir.IntType(32), VECTOR), [0] * VECTOR)
            with cgutils.for_range(builder, num_rows) as loop:
                offset = builder.mul(loop.index, row_stride)
                stored = signature.args[1][0].dtype
                vectors = [_load(builder, builder.gep(row, [offset]), stored) for row in rows]
                for s in range(num_sums):
                    weight = builder.load(builder.gep(starts[s], [loop.index]))
                    weight = builder.insert_element(undefined, weight, ir.Constant(ir.IntType(32), 0))
                    weight = builder.shuffle_vector(weight, undefined, lanes)
                    for v in range(num_vectors):
                        product = builder.fmul(vectors[v], weight, flags=_CONTRACT)
                        total = builder.fadd(builder.load(registers[s, v]), product, flags=_CONTRACT)
                        builder.store(total, registers[s, v])
            for each in every:
                builder.store(builder.load(registers[each]), places[each]).align = 4
            return context.get_dummy_value()

        return signature, generate

    return add_rows


_add_1x1, _add_1x4 = _adder(1, 1), _adder(1, 4)
_add_2x1, _add_3x1, _add_4x1, _add_5x1, _add_6x1 = (_adder(num, 1) for num in range(2, MOST_SUMS + 1))


@intrinsic
def _power_of_two(_context, exponent):
    """Return 2^exponent for a whole number of -126 to 127."""

    def generate(_, builder, __, arguments):
        word = ir.IntType(32)
        biased = builder.add(arguments[0], ir.Constant(word, 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(word, 23)), ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def _put(_context, table, index, value):
    """Store a float in a table of float32, or of float16 (as uint16)."""

    def generate(context, builder, signature, arguments):
        array, index, value = arguments
        place = builder.gep(context.make_array(signature.args[0])(context, builder, array).data, [index])
        if signature.args[0].dtype == types.uint16:
            half = builder.fptrunc(value, ir.HalfType())
            value = builder.bitcast(half, ir.IntType(16))
        builder.store(value, place)
        return context.get_dummy_value()

    return types.void(table, types.intp, types.float32), generate


_LOG2_E = np.float32(1.4426950408889634)
# ln 2 in two parts, of which the first has so few bits that its products are exact.
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(np.log(2) - 0.693359375)
_TERMS = tuple(np.float32(term) for term in (1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2))
_LEAST, _MOST = np.float32(-87), np.float32(88)


@numba.njit(inline="always")
def _exp(x):
    """Return e^x, good to two units of the last place; beyond -87 and 88 that of these, and NaN of NaN."""
    x = _MOST if x > _MOST else x
    x = _LEAST if x < _LEAST else x
    whole = np.floor(x * _LOG2_E + _HALF)
    rest = (x - whole * _LN2_HIGH) - whole * _LN2_LOW
    series = _TERMS[0]
    series = series * rest + _TERMS[1]
    series = series * rest + _TERMS[2]
    series = series * rest + _TERMS[3]
    series = series * rest + _TERMS[4]
    series = series * rest + _TERMS[5]
    series = (series * rest + _ONE) * rest + _ONE
    return series * _power_of_two(np.int32(whole))


_GELU_SLOPE, _GELU_CUBE = np.float32(2 * (2 / np.pi) ** 0.5), np.float32(0.044715)


@numba.njit(inline="always")
def _gelu(x):
    """Return GELU in its tanh form, as x times a sigmoid."""
    return x / (_ONE + _exp(-_GELU_SLOPE * (x + _GELU_CUBE * x * x * x)))


@numba.njit(**_OPTIONS)
def _add_to_sums(weights, table, num_rows, sums, num_sums):
    """Add weighted rows of a table to a vector of each of some sums; arguments as for `_adder`."""
    weights, first_weight, weight_stride = weights
    sums, first_sum, sum_stride = sums
    done = 0
    while done < num_sums:
        left = num_sums - done
        of = weights, first_weight + done * weight_stride, weight_stride
        to = sums, first_sum + done * sum_stride, sum_stride
        if left >= 6:
            _add_6x1(of, table, num_rows, to)
        elif left == 5:
            _add_5x1(of, table, num_rows, to)
        elif left == 4:
            _add_4x1(of, table, num_rows, to)
        elif left == 3:
            _add_3x1(of, table, num_rows, to)
        elif left == 2:
            _add_2x1(of, table, num_rows, to)
        else:
            _add_1x1(of, table, num_rows, to)
        done += MOST_SUMS


@numba.njit(parallel=True, cache=True, **_OPTIONS)
def linear_map(x, num_rows, table, scales, biases, has_gelu, result):
    """Map rows x [n i] to x table * scales + biases [n o], with GELU if asked.

    Args:
        x: float32, flat.
        num_rows: n.
        table: weights, VECTOR outputs after VECTOR outputs, each [i VECTOR].
        scales: of each output, a multiple of VECTOR.
        biases: of each output.
        has_gelu: whether GELU follows.
        result: float32, flat.
    """
    num_outputs = len(scales)
    num_vectors = num_outputs // VECTOR
    num = len(table) // num_outputs
    stride = num * VECTOR
    for block in numba.prange((num_vectors + _BLOCK - 1) // _BLOCK):
        first, stop = block * _BLOCK, min((block + 1) * _BLOCK, num_vectors)
        for row in range(num_rows):
            for at in range(row * num_outputs + first * VECTOR, row * num_outputs + stop * VECTOR):
                result[at] = _ZERO
        if num_rows == 1 and stop - first == _BLOCK:
            _add_1x4((x, 0, 0), (table, first * stride, VECTOR, stride), num, (result, first * VECTOR, 0))
        else:
            for vector in range(first, stop):
                part, to = (table, vector * stride, VECTOR, 0), (result, vector * VECTOR, num_outputs)
                _add_to_sums((x, 0, num), part, num, to, num_rows)
        for row in range(num_rows):
            for output in range(first * VECTOR, stop * VECTOR):
                at = row * num_outputs + output
                result[at] = result[at] * scales[output] + biases[output]
            if has_gelu:
                for at in range(row * num_outputs + first * VECTOR, row * num_outputs + stop * VECTOR):
                    result[at] = _gelu(result[at])


@numba.njit(**_OPTIONS)
def _add_rows(weights, table, num_rows, sums, num_sums, num_numbers):
    """Add weighted rows of a table to sums of so many numbers, a multiple of VECTOR; arguments as for `_adder`."""
    table, first_row, row_stride = table
    sums, first_sum, sum_stride = sums
    done = 0
    if num_sums == 1:
        while done + 4 * VECTOR <= num_numbers:
            part = table, first_row + done, row_stride, VECTOR
            _add_1x4(weights, part, num_rows, (sums, first_sum + done, 0))
            done += 4 * VECTOR
    while done < num_numbers:
        part = table, first_row + done, row_stride, 0
        _add_to_sums(weights, part, num_rows, (sums, first_sum + done, sum_stride), num_sums)
        done += VECTOR


@numba.njit(parallel=True, cache=True, **_OPTIONS)
def attend(layer, heads, shape, pool, reads, result):
    """Attend from each new token to the entries of its row.

    Args:
        layer: number of the layer.
        heads: Q, K and V of the new tokens, [n 3 h e] flat, Q divided by sqrt(e).
        shape: h; e, a multiple of VECTOR; entries of a page; entries of a unit, a multiple of VECTOR.
        pool: keys and values, each [l -1]; a page of a head is [e page] and [page e].
        reads: what the tokens read, four arrays. First token and number of adjacent tokens that read the same units,
            some only the first of them, [g 2]. Number of units that each token reads, then their numbers in the
            layer's part of the pool, [z n 1+u]. Last of its entries that each token sees, [n]. Biases of its entries,
            added to the scores, [z n k], or empty.
        result: [n d] flat.
    """
    num_heads, channels, page, unit = shape
    groups, of_layers, last_entries, biases = reads
    own_keys, own_values, units = pool[0][layer], pool[1][layer], of_layers[layer % len(of_layers)]
    num_groups, width, in_page = len(groups), num_heads * channels, page // unit
    for pair in numba.prange(num_heads * num_groups):
        head, first, num_tokens = (
            pair // num_groups,
            groups[pair % num_groups, 0],
            groups[pair % num_groups, 1],
        )
        last = first + num_tokens - 1
        num_units = units[last, 0]
        num_scores = num_units * unit
        scores = np.zeros(num_tokens * num_scores, np.float32)
        query, to = first * 3 * width + head * channels, first * width + head * channels
        for index in range(num_units):
            which = units[last, 1 + index]
            at = (which // in_page * num_heads + head) * channels * page + which % in_page * unit
            to_scores = scores, index * unit, num_scores
            _add_rows((heads, query, 3 * width), (own_keys, at, page), channels, to_scores, num_tokens, unit)
        most = 0
        for token in range(num_tokens):
            num_seen = min(last_entries[first + token] + 1, units[first + token, 0] * unit)
            most = max(most, num_seen)
            own = scores[token * num_scores : (token + 1) * num_scores]
            if len(biases):
                own_biases = biases[layer % len(biases), first + token]
                for entry in range(num_seen):
                    own[entry] += own_biases[entry]
            _softmax(own, num_seen)
            for at in range(to + token * width, to + token * width + channels):
                result[at] = _ZERO
        for index in range(num_units):
            which = units[last, 1 + index]
            at = ((which // in_page * num_heads + head) * page + which % in_page * unit) * channels
            num = min(unit, most - index * unit)
            of_scores = scores, index * unit, num_scores
            _add_rows(of_scores, (own_values, at, channels), num, (result, to, width), num_tokens, channels)


@numba.njit(**_OPTIONS)
def _softmax(scores, num):
    """Replace the first scores by their softmax, and the others by zeros; a multiple of VECTOR in all."""
    for entry in range(num, len(scores)):
        scores[entry] = _LOWEST
    lanes = np.full(VECTOR, _LOWEST)
    for first in range(0, len(scores), VECTOR):
        for lane in range(VECTOR):
            lanes[lane] = scores[first + lane] if scores[first + lane] > lanes[lane] else lanes[lane]
    largest = lanes.max()
    for entry in range(len(scores)):
        scores[entry] = _exp(scores[entry] - largest)
    for entry in range(num, len(scores)):
        scores[entry] = _ZERO
    total = _sum(scores, 0, len(scores))
    for entry in range(len(scores)):
        scores[entry] /= total


@numba.njit(**_OPTIONS)
def _sum(numbers, first, num):
    """Return the sum of numbers in float32, each sixteenth one apart first; `num` is a multiple of VECTOR."""
    lanes = np.zeros(VECTOR, np.float32)
    for start in range(first, first + num, VECTOR):
        for lane in range(VECTOR):
            lanes[lane] += numbers[start + lane]
    total = _ZERO
    for lane in range(VECTOR):
        total += lanes[lane]
    return total


@numba.njit(cache=True, **_OPTIONS)
def store(layer, heads, shape, pool, writes):
    """Store the keys and values of new tokens in the pool.

    Args:
        layer: as for `attend`.
        heads: as for `attend`.
        shape: as for `attend`.
        pool: as for `attend`.
        writes: token, page and offset in the page, [z m 3]; a negative token ends them.
    """
    num_heads, channels, page, _ = shape
    own_keys, own_values, own_writes = pool[0][layer], pool[1][layer], writes[layer % len(writes)]
    width = num_heads * channels
    for index in range(len(own_writes)):
        token, in_pool, offset = own_writes[index]
        if token < 0:
            break
        for head in range(num_heads):
            at = (in_pool * num_heads + head) * channels * page
            key = token * 3 * width + width + head * channels
            for channel in range(channels):
                _put(own_keys, at + channel * page + offset, heads[key + channel])
                _put(own_values, at + offset * channels + channel, heads[key + width + channel])


@numba.njit(**_OPTIONS)
def _norm_row(x, first, is_relaxed, epsilon, gains, shifts, result):
    """Normalise a row; it is first divided by an eighth of its largest magnitude if relaxed."""
    width = len(gains)
    scale = _ONE
    if is_relaxed:
        largest = _ZERO
        for at in range(first, first + width):
            largest = abs(x[at]) if abs(x[at]) > largest else largest
        if largest > 0:
            scale = _EIGHT / largest
    centred = np.empty(width, np.float32)
    for at in range(width):
        centred[at] = x[first + at] * scale
    mean = _sum(centred, 0, width) / np.float32(width)
    squares = np.empty(width, np.float32)
    for at in range(width):
        centred[at] -= mean
        squares[at] = centred[at] * centred[at]
    factor = _ONE / np.sqrt(_sum(squares, 0, width) / np.float32(width) + epsilon)
    for at in range(width):
        result[first + at] = centred[at] * factor * gains[at] + shifts[at]


@numba.njit(parallel=True, cache=True, **_OPTIONS)
def layer_norm(x, num_rows, is_relaxed, epsilon, gains, shifts, result):
    """Normalise rows [n d], flat, d a multiple of VECTOR; arguments as for `run_blocks`."""
    if num_rows < _FEW_ROWS:
        for row in range(num_rows):
            _norm_row(x, row * len(gains), is_relaxed, epsilon, gains, shifts, result)
    else:
        for row in numba.prange(num_rows):
            _norm_row(x, row * len(gains), is_relaxed, epsilon, gains, shifts, result)


@numba.njit(**_OPTIONS)
def _map(x, num_rows, maps, layer, result):
    """Apply a layer's map of one kind; arguments as for `run_blocks`."""
    tables, scales, biases, has_gelu = maps
    linear_map(x, num_rows, tables[layer], scales[layer], biases[layer], has_gelu, result)


@numba.njit(cache=True, **_OPTIONS)
def run_blocks(x, num_rows, maps, norms, norm_kind, placement, shape, pool, reads, writes):
    """Run new tokens through all blocks.

    Args:
        x: embedded tokens, [n d] flat; replaced by the result.
        num_rows: n.
        maps: of the four maps of a block in turn: tables, scales and biases as for `linear_map`, each of all layers,
            and whether GELU follows.
        norms: gains and shifts of the four norms of a block in turn, each [l 4 d].
        norm_kind: whether a row is divided by its largest magnitude first; epsilon.
        placement: of the norms, an index of PLACEMENTS.
        shape: as for `attend`.
        pool: as for `attend`.
        reads: as for `attend`.
        writes: as for `store`.
    """
    gains, shifts = norms
    is_relaxed, epsilon = norm_kind
    width = gains.shape[2]
    normed = np.empty(num_rows * width, np.float32)
    attended, branch = np.empty_like(normed), np.empty_like(normed)
    heads = np.empty(num_rows * 3 * width, np.float32)
    inner = np.empty(num_rows * maps[2][1].shape[1], np.float32)
    for layer in range(len(gains)):
        for half in range(2):
            before, after = 2 * half, 2 * half + 1
            entering = x
            if placement != _POST:
                entering = normed
                layer_norm(
                    x, num_rows, is_relaxed, epsilon, gains[layer, before], shifts[layer, before], normed
                )
            if half == 0:
                _map(entering, num_rows, maps[0], layer, heads)
                store(layer, heads, shape, pool, writes)
                attend(layer, heads, shape, pool, reads, attended)
                _map(attended, num_rows, maps[1], layer, branch)
            else:
                _map(entering, num_rows, maps[2], layer, inner)
                _map(inner, num_rows, maps[3], layer, branch)
            if placement == _SANDWICH:
                layer_norm(
                    branch, num_rows, is_relaxed, epsilon, gains[layer, after], shifts[layer, after], branch
                )
            for at in range(num_rows * width):
                x[at] += branch[at]
            if placement == _POST:
                layer_norm(x, num_rows, is_relaxed, epsilon, gains[layer, after], shifts[layer, after], x)
