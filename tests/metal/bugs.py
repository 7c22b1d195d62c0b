"""Mistakes that Metal kernels are prone to, each to be made in one of ours."""

from dataclasses import dataclass

__all__ = ["BUGS", "Bug"]


@dataclass(frozen=True, slots=True)
class Bug:
    """In the body of `kernel`, `old` (its first occurrence) becomes `new`.

    `needs` is what sees it, where running the kernel and looking at the result may not:
    "lint", or a sanitizer. An `is_quick` one is tried in every run.
    """

    what: str
    kernel: str
    old: str
    new: str
    needs: str = ""
    is_quick: bool = False

    def seeded(self, body: str) -> str:
        assert self.old in body, f"{self.what}: the body has changed"
        return body.replace(self.old, self.new, 1)


_BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);"
_AGE = "age = age < 0 ? age + C : age;"
_WINDOW_AGE = "age = (age < 0 ? age + C : age) + N;"
_NORM, _ROWS, _RING = "add_rms_norm", "quantize_rows", "ring_attention_q8"
_COMBINE, _WINDOW = "ring_combine", "window_attention"

BUGS = (
    # Synchronisation.
    Bug("no barrier before partial sums are read", _NORM, _BARRIER, "", "thread", True),
    Bug("no barrier before parts are combined", _WINDOW, _BARRIER, "", "thread"),
    Bug(
        "a barrier that orders no memory",
        _WINDOW,
        "mem_flags::mem_threadgroup",
        "mem_flags::mem_none",
        "thread",
    ),
    Bug(
        "a barrier that half of the threads reach",
        _NORM,
        _BARRIER,
        f"if (tid < 128) {{ {_BARRIER} }}",
        is_quick=True,
    ),
    Bug(
        "a thread that returns before the barrier",
        _NORM,
        _BARRIER,
        f"if (tid == 255) return; {_BARRIER}",
    ),
    Bug(
        "a lane that misses a simdgroup's sum",
        _NORM,
        "sum = simd_sum(sum);",
        "if (tid != 3) sum = simd_sum(sum);",
    ),
    Bug(
        "a shuffle with lanes that are not there",
        _RING,
        "step < 32; step *= 2) {\n    const float other_m",
        "step < 64; step *= 2) {\n    const float other_m",
    ),
    # Memory.
    Bug("one element too many", _NORM, "if (i < D) {", "if (i <= D) {", is_quick=True),
    Bug(
        "partial sums that nobody wrote",
        _NORM,
        "if (thread_index_in_simdgroup == 0) {",
        "if (thread_index_in_simdgroup == 32) {",
    ),
    Bug(
        "an output that is not written everywhere",
        _NORM,
        "y[first + i] = static_cast<T>(",
        "if (i > 0) y[first + i] = static_cast<T>(",
        is_quick=True,
    ),
    Bug(
        "an input that is written",
        _NORM,
        "h[first + i] = rounded;",
        "h[first + i] = rounded; ((device T*)x)[first + i] = rounded;",
    ),
    Bug(
        "rows that are written over each other",
        _NORM,
        "h[first + i] = rounded;",
        "h[i] = rounded;",
    ),
    Bug(
        "rows that overlap",
        _ROWS,
        "size_t(row) * (D + 4)",
        "size_t(row) * D",
        is_quick=True,
    ),
    Bug("a scale behind its row", _ROWS, "(to + D) = scale", "(to + D + 4) = scale"),
    Bug(
        "more entries than the ring has",
        _RING,
        "const int held = meta[3 * stream + 1];",
        "const int held = C + 64;",
    ),
    Bug("maxima that are not written", _RING, "maxima[to] = m[t];", ""),
    Bug(
        "a sum that starts anywhere",
        _WINDOW,
        "l[t] = 0.0f;",
        "",
        "memory",
    ),
    Bug(
        "threadgroup memory for a simdgroup too few",
        _WINDOW,
        "threadgroup float maxima[SIMDGROUPS][QT];",
        "threadgroup float maxima[SIMDGROUPS - 1][QT];",
        "address",
    ),
    Bug(
        "queries of a tile that are not there",
        _WINDOW,
        "  if (first_query + t < N) {\n    float top",
        "  {\n    float top",
    ),
    # Address spaces and types, which Metal's compiler would refuse.
    Bug(
        "device memory that is threadgroup memory",
        _NORM,
        _BARRIER,
        f"{_BARRIER} const device float* p = partial; sum += 0 * p[0];",
        "lint",
    ),
    Bug(
        "device memory that is constant for a few streams",
        _RING,
        "const int end = meta[3 * stream];",
        "const device int* m3 = meta; const int end = m3[3 * stream];",
        "lint",
        is_quick=True,
    ),
    Bug(
        "a float that becomes a bfloat by itself",
        _COMBINE,
        "static_cast<T>(sum / total)",
        "sum / total",
        "lint",
    ),
    Bug(
        "a double",
        _NORM,
        "sum = simd_sum(sum);",
        "double twice = sum; sum = simd_sum(float(twice));",
        "lint",
    ),
    Bug(
        "a function that Metal does not have",
        _NORM,
        "metal::precise::rsqrt(",
        "erf(",
    ),
    # Arithmetic.
    Bug("the weights of another stream", _NORM, "ROWS ?", "false ?"),
    Bug("a row taken for a stream", _NORM, "row / uint(x_shape[1])", "row"),
    Bug("no epsilon", _NORM, " + eps[0]", ""),
    Bug("a mean over the threads", _NORM, "sum / float(D)", "sum / float(THREADS)"),
    Bug(
        "a simdgroup's sum left out",
        _NORM,
        "thread_index_in_simdgroup < THREADS / 32 ?",
        "thread_index_in_simdgroup < THREADS / 32 - 1 ?",
    ),
    Bug("a scale of 128 steps", _ROWS, "/ 127.0f", "/ 128.0f", is_quick=True),
    Bug("truncation", _ROWS, "metal::rint(x[n] / scale)", "x[n] / scale"),
    Bug("the largest, signs and all", _ROWS, "metal::fabs(x[n])", "x[n]"),
    Bug("everybody's first row", _ROWS, "size_t source = size_t(row) * D", "size_t source = 0"),
    Bug("a row of zeros divided by nothing", _ROWS, "largest > 0.0f ?", "true ?"),
    Bug("every lane's own largest", _ROWS, "largest = simd_max(largest);", ""),
    Bug(
        "off by one at the wrap",
        _RING,
        _AGE,
        "age = age < 0 ? age + C - 1 : age;",
        is_quick=True,
    ),
    Bug("no wrap", _RING, _AGE, ""),
    Bug("off by one at the wrap of the window", _WINDOW, _WINDOW_AGE, "age = (age < 0 ? age + C + 1 : age) + N;"),
    Bug("everybody a step older", _RING, "end - 1 - slot", "end - slot"),
    Bug(
        "the wrong head",
        _RING,
        "kv_head * G + simdgroup_index_in_threadgroup",
        "kv_head + n_kv_heads * simdgroup_index_in_threadgroup",
    ),
    Bug("the wrong head's keys", _WINDOW, "head / (H / HK)", "head % HK", "", True),
    Bug("old entries as young as the newest", _WINDOW, " : age) + N;", " : age);"),
    Bug("another stream's angles", _WINDOW, "angles_shape[0] == 1 ? 0 : first_row", "0"),
    Bug("angles of the values", _WINDOW, "angles_shape[2] * D;", "D;"),
    Bug("rotated the other way", _WINDOW, "y * c + x * s", "y * c - x * s"),
    Bug("keys without their bias", _WINDOW, "const int b = i + part * E;", "const int b = e;"),
    Bug("keys that are not stored", _WINDOW, "= static_cast<T>(k[e]);", "= static_cast<T>(0.0f);"),
    Bug("values stored over keys", _WINDOW, "const int value_row = key_row + HK * N;", "const int value_row = key_row;"),
    Bug("an entry that is not stored", _WINDOW, "&& first_query == 0 &&", "&& newest > 0 &&"),
    Bug("no scale of the key", _RING, "score *= key_scale;", ""),
    Bug("the key's scale for the value", _RING, "weight * value_scale", "weight * key_scale"),
    Bug("the first stream's ring", _RING, "meta[3 * stream + 1]", "meta[1]"),
    Bug("a window of one more", _RING, "distance < window", "distance <= window"),
    Bug("a query that sees the future", _RING, "distance >= 0 && ", ""),
    Bug(
        "a slot in two parts",
        _RING,
        "metal::min(first + per_block, held)",
        "metal::min(first + per_block + 1, held)",
    ),
    Bug("values where keys are", _RING, "keys + n_kv_heads * uint(C)", "keys"),
    Bug("parts that weigh the same", _COMBINE, "total += weight * sums", "total += sums"),
    Bug("the wrong number of a part", _COMBINE, "* D + i % D]", "* D + i / D % D]"),
    Bug("keys that all simdgroups read", _WINDOW, "int start = simdgroup * KEYS", "int start = 0"),
)  # fmt: skip
