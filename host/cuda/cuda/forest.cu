// Raw outputs of tree ensembles.
//
// A block takes `tile` rows and `lanes` threads for each. Its rows' values lie in shared memory feature by feature, so that
// the threads of a warp, each at another row, never meet in a bank whatever they ask for. Nodes are read where they lie: all
// blocks walk the same trees at about the same time, so the caches have them; copying them beside the values was slower the
// deeper the trees. A thread walks several trees at once, lanes walk side by side and write down where they end, and the
// first lane adds leaves in the order of the trees.

struct Tree {
    u32 first;
    u32 count;
};

struct Addition {
    double value;
    u32 output;
    u32 unused;
};

struct ForestArgs {
    const Node* nodes;
    const Tree* trees;
    const Addition* additions;
    Tables tables;
    const double* base;
    const void* values;
    // By output, then row; only where there are several.
    void* sums;
    double* out;
    u64 row_stride;
    u64 feature_stride;
    u32 rows;
    u32 features;
    u32 outputs;
    // Leaves are added to the base, or the base to their average.
    u32 is_average;
    u32 tree_count;
    u32 tile;
    u32 lanes;
    // Whether the rows' values fit into shared memory.
    u32 values_staged;
    u32 unused;
};

#define WALKS 4

// Walk several trees at once, so that their loads wait together. A walk that has ended asks its leaf again, which changes
// nothing, until all have. Leaves their numbers in `at`.
template <class T>
DEVICE void walk(const Node* nodes, const u32* first, const Tables& tables, const T* values, u64 stride, u32* at) {
    for (u32 k = 0; k < WALKS; k++) at[k] = 0;
    for (;;) {
        Node node[WALKS];
        T value[WALKS];
        u32 running = 0;
#pragma unroll
        for (u32 k = 0; k < WALKS; k++) node[k] = nodes[first[k] + at[k]];
#pragma unroll
        for (u32 k = 0; k < WALKS; k++) {
            bool is_leaf = test_of(node[k].meta) >= LEAF;
            value[k] = values[is_leaf ? 0 : (node[k].meta & 0xffffffu) * stride];
            running |= is_leaf ? 0u : 1u << k;
        }
        if (running == 0) return;
#pragma unroll
        for (u32 k = 0; k < WALKS; k++) {
            bool is_running = (running >> k & 1u) != 0;
            bool yes = goes_yes(tables, node[k].number, is_running ? node[k].meta : 0u, value[k]);
            if (is_running) at[k] = yes ? node[k].next : node[k].next + 1;
        }
    }
}

// Add a leaf to a sum in a register, or to those of a row.
template <class S>
DEVICE void add_leaf(const ForestArgs& args, const Node& leaf, u32 row, S& sum) {
    S* sums = (S*)args.sums;
    if (test_of(leaf.meta) == LEAF) {
        S value = number_as(leaf.number, S());
        if (args.outputs == 1) sum += value;
        else sums[(u64)leaf.next * args.rows + row] += value;
        return;
    }
    for (u32 at = 0; at < (u32)leaf.number; at++) {
        Addition addition = args.additions[leaf.next + at];
        if (args.outputs == 1) sum += (S)addition.value;
        else sums[(u64)addition.output * args.rows + row] += (S)addition.value;
    }
}

template <class T, class S>
DEVICE void forest(const ForestArgs& args) {
    SHARED_MEMORY(shared);
    u32* ends = (u32*)shared;
    T* tile = (T*)(ends + args.tile * args.lanes * WALKS);

    u32 within = threadIdx.x % args.tile, lane = threadIdx.x / args.tile;
    u32 row = blockIdx.x * args.tile + within;
    bool is_there = row < args.rows;
    const T* values = (const T*)args.values + (u64)(is_there ? row : args.rows - 1) * args.row_stride;
    u64 stride = args.feature_stride;
    if (args.values_staged) {
        for (u32 feature = lane; feature < args.features; feature += args.lanes) {
            tile[feature * args.tile + within] = values[(u64)feature * stride];
        }
        __syncthreads();
    }

    S sum = args.is_average ? (S)0 : (S)args.base[0];
    if (args.outputs > 1 && lane == 0 && is_there) {
        for (u32 output = 0; output < args.outputs; output++) {
            ((S*)args.sums)[(u64)output * args.rows + row] = args.is_average ? (S)0 : (S)args.base[output];
        }
    }

    u32 together = args.lanes * WALKS;
    for (u32 first = 0; first < args.tree_count; first += together) {
        u32 here = args.tree_count - first < together ? args.tree_count - first : together;
        // This thread's trees: every `lanes`th from its own on. Those beyond the last are walked for nothing.
        u32 from[WALKS], ended[WALKS];
        for (u32 k = 0; k < WALKS; k++) {
            u32 at = lane + k * args.lanes;
            from[k] = args.trees[first + (at < here ? at : 0)].first;
        }
        if (args.values_staged) {
            walk(args.nodes, from, args.tables, tile + within, args.tile, ended);
        } else {
            walk(args.nodes, from, args.tables, values, stride, ended);
        }
        for (u32 k = 0; k < WALKS; k++) {
            u32 at = lane + k * args.lanes;
            if (at < here) ends[at * args.tile + within] = from[k] + ended[k];
        }
        __syncthreads();
        if (lane == 0 && is_there) {
            for (u32 at = 0; at < here; at++) add_leaf(args, args.nodes[ends[at * args.tile + within]], row, sum);
        }
        __syncthreads();
    }

    if (lane != 0 || !is_there) return;
    for (u32 output = 0; output < args.outputs; output++) {
        double value = (double)(args.outputs == 1 ? sum : ((S*)args.sums)[(u64)output * args.rows + row]);
        if (args.is_average) value = value / (double)(args.tree_count ? args.tree_count : 1) + args.base[output];
        args.out[(u64)row * args.outputs + output] = value;
    }
}

KERNEL forest_f32_f32(ForestArgs args) { forest<float, float>(args); }
KERNEL forest_f32_f64(ForestArgs args) { forest<float, double>(args); }
KERNEL forest_f64_f32(ForestArgs args) { forest<double, float>(args); }
KERNEL forest_f64_f64(ForestArgs args) { forest<double, double>(args); }
