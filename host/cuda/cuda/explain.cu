// Explanations of tree ensembles by tables of finished contributions.
//
// The tables are the processor's own: a small subtree contributes to a feature what stands in its table under the case that
// the row makes of it. Two passes. The first finds the case of every subtree and row, a byte each. The second has a thread
// for each row and each place of the answer, which adds the entries of that place in the order of the subtrees: the sums have
// the processor's bits. The threads of a warp are rows of one place, so that the entries they read lie within 2 KiB.

struct Condition {
    u64 number;
    u32 meta;
    u32 bit_and_yes;
};

struct Clump {
    u32 first_condition;
    u32 conditions;
    u32 all_set;
    u32 unused;
};

struct CasesArgs {
    const Clump* clumps;
    const Condition* conditions;
    Tables tables;
    const void* values;
    // By subtree, then row.
    u8* cases;
    u64 row_stride;
    u64 feature_stride;
    u32 rows;
    u32 clump_count;
};

template <class T>
DEVICE void cases(const CasesArgs& args) {
    u32 row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= args.rows) return;
    const T* values = (const T*)args.values + (u64)row * args.row_stride;
    for (u32 at = blockIdx.y; at < args.clump_count; at += gridDim.y) {
        Clump clump = args.clumps[at];
        u32 found = clump.all_set;
        for (u32 part = 0; part < clump.conditions; part++) {
            Condition condition = args.conditions[clump.first_condition + part];
            T value = values[(u64)(condition.meta & 0xffffffu) * args.feature_stride];
            bool is_wanted = goes_yes(args.tables, condition.number, condition.meta, value) == (condition.bit_and_yes >> 8 != 0);
            if (!is_wanted) found &= ~(condition.bit_and_yes & 0xffu);
        }
        args.cases[(u64)at * args.rows + row] = (u8)found;
    }
}

KERNEL cases_f32(CasesArgs args) { cases<float>(args); }
KERNEL cases_f64(CasesArgs args) { cases<double>(args); }

struct Entry {
    u32 clump;
    u32 first;
};

struct SumsArgs {
    const double* tables;
    // Place p of an answer adds entries from `entry_at[p]` to `entry_at[p + 1]`.
    const u32* entry_at;
    const Entry* entries;
    const u8* cases;
    double* out;
    u32 rows;
    u32 places;
};

#define AHEAD 8

KERNEL explain_sums(SumsArgs args) {
    u32 row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= args.rows) return;
    for (u32 place = blockIdx.y; place < args.places; place += gridDim.y) {
        double sum = 0.0;
        u32 at = args.entry_at[place], end = args.entry_at[place + 1];
        // Several loads wait together; what they bring is added one after the other.
        for (; at + AHEAD <= end; at += AHEAD) {
            Entry entry[AHEAD];
            u32 found[AHEAD];
            double value[AHEAD];
#pragma unroll
            for (u32 k = 0; k < AHEAD; k++) entry[k] = args.entries[at + k];
#pragma unroll
            for (u32 k = 0; k < AHEAD; k++) found[k] = args.cases[(u64)entry[k].clump * args.rows + row];
#pragma unroll
            for (u32 k = 0; k < AHEAD; k++) value[k] = args.tables[entry[k].first + found[k]];
#pragma unroll
            for (u32 k = 0; k < AHEAD; k++) sum += value[k];
        }
        for (; at < end; at++) {
            Entry entry = args.entries[at];
            sum += args.tables[entry.first + args.cases[(u64)entry.clump * args.rows + row]];
        }
        args.out[(u64)row * args.places + place] = sum;
    }
}
