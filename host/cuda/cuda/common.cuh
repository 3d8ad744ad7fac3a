// What all kernels share: the form of a split, and which way a value goes there.
//
// Every source is this file and one kernel file behind it. No header of CUDA or of the C library is needed. The same sources
// are compiled for the processor in tests, where SHARED_MEMORY, the built-in variables and __syncthreads() come from a shim.
//
// Nothing may be fused: with separate multiplication and addition, sums have the bits that the processor's have.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifndef SHARED_MEMORY
#define SHARED_MEMORY(name) extern __shared__ __align__(16) u8 name[]
#define KERNEL extern "C" __global__ void
#define DEVICE __device__ __forceinline__
#endif

// Tests of a split, in bits 24 to 26 of its `meta`.
#define LESS 0
#define AT_MOST 1
#define EQUAL 2
#define MEMBER 3
#define MEMBER_FROM_ZERO 4
#define ONE_OF 5
#define LEAF 6
#define LEAF_OF_MANY 7
// Which values are missing, in bits 27 and 28.
#define MISSING_NAN 0
#define MISSING_NAN_OR_ZERO 1
#define MISSING_NAN_IS_ZERO 2
#define MISSING_IS_YES (1u << 29)

// A node of a tree. `number` holds the threshold (or a leaf's value) as the bits of a float or a double, or which set or list
// is asked for, or how many additions a leaf has. `next` is the node for yes, counted from the tree's first; no stands behind
// it. In a leaf it is the output, or the first of its additions.
struct __align__(16) Node {
    u64 number;
    u32 meta;
    u32 next;
};

// Sets and lists of all trees: number i lies from `at[i]` to `at[i + 1]`.
struct Tables {
    const u32* set_at;
    const u32* sets;
    const u32* list_at;
    const double* lists;
};

DEVICE u32 test_of(u32 meta) { return (meta >> 24) & 7u; }

DEVICE float number_as(u64 bits, float) {
    union { u32 bits; float value; } as;
    as.bits = (u32)bits;
    return as.value;
}

DEVICE double number_as(u64 bits, double) {
    union { u64 bits; double value; } as;
    as.bits = bits;
    return as.value;
}

// Whether the value, truncated, is one of the set's ascending codes.
DEVICE bool is_member(const Tables& tables, u32 set, double value) {
    double code = trunc(value);
    if (!(code >= 0.0 && code <= 4294967295.0)) return false;
    u32 wanted = (u32)code, from = tables.set_at[set], end = tables.set_at[set + 1];
    while (from < end) {
        u32 middle = from + (end - from) / 2, found = tables.sets[middle];
        if (found == wanted) return true;
        if (found < wanted) from = middle + 1; else end = middle;
    }
    return false;
}

// Whether the value is one of the list's ascending numbers.
DEVICE bool is_among(const Tables& tables, u32 list, double value) {
    u32 from = tables.list_at[list], end = tables.list_at[list + 1];
    while (from < end) {
        u32 middle = from + (end - from) / 2;
        double found = tables.lists[middle];
        if (found == value) return true;
        if (found < value) from = middle + 1; else end = middle;
    }
    return false;
}

// What is no comparison with plain missing values.
template <class T>
DEVICE bool goes_yes_specially(const Tables& tables, u64 number, u32 meta, T value) {
    u32 missing = (meta >> 27) & 3u;
    bool is_nan = value != value;
    if (missing == MISSING_NAN_IS_ZERO) {
        if (is_nan) value = (T)0;
    } else if (is_nan || (missing == MISSING_NAN_OR_ZERO && !(fabs((double)value) > (double)1e-35f))) {
        return (meta & MISSING_IS_YES) != 0;
    }
    switch (test_of(meta)) {
        case LESS: return value < number_as(number, T());
        case AT_MOST: return value <= number_as(number, T());
        case EQUAL: return value == number_as(number, T());
        case MEMBER: return is_member(tables, (u32)number, (double)value);
        case MEMBER_FROM_ZERO: return value >= (T)0 && is_member(tables, (u32)number, (double)value);
        default: return is_among(tables, (u32)number, (double)value);
    }
}

template <class T>
DEVICE bool goes_yes(const Tables& tables, u64 number, u32 meta, T value) {
    if ((meta & 0x1f000000u) == 0) {
        return value < number_as(number, T()) || (value != value && (meta & MISSING_IS_YES) != 0);
    }
    return goes_yes_specially(tables, number, meta, value);
}
