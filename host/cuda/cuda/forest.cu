// Raw outputs of tree ensembles.
//
// A block takes `tile` rows and `lanes` threads for each. Its rows' values lie in shared memory feature by feature, so that
// the threads of a warp, each at another row, never meet in a bank whatever they ask for. Trees come in groups whose nodes
// fit beside them; a tree that does not fit is walked where it lies. With one lane a thread walks all trees of its row and
// adds as it goes. With more, lanes walk trees side by side and write down where they end, and the first lane
// adds: in both cases leaves are added in the order of the trees.

struct Tree {
    u32 first;
    u32 count;
};

// Trees one behind the other; `staged` where their nodes are copied into shared memory.
struct Group {
    u32 first_tree;
    u32 trees;
    u32 first_node;
    u32 nodes;
    u32 staged;
    u32 unused;
};

struct Addition {
    double value;
    u32 output;
    u32 unused;
};

struct ForestArgs {
    const Node* nodes;
    const Tree* trees;
    const Group* groups;
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
    u32 group_count;
    // Leaves are added to the base, or the base to their average.
    u32 is_average;
    u32 tree_count;
    u32 tile;
    u32 lanes;
    // Nodes that fit into shared memory; whether the rows' values are there too.
    u32 node_room;
    u32 values_staged;
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
    Node* staged = (Node*)shared;
    u32* ends = (u32*)(staged + args.node_room);
    T* tile = (T*)(ends + (args.lanes > 1 ? args.tile * args.lanes * WALKS : 0));

    u32 within = threadIdx.x % args.tile, lane = threadIdx.x / args.tile;
    u32 row = blockIdx.x * args.tile + within;
    bool is_there = row < args.rows;
    const T* values = (const T*)args.values + (u64)(is_there ? row : args.rows - 1) * args.row_stride;
    u64 stride = args.feature_stride;
    if (args.values_staged) {
        for (u32 feature = lane; feature < args.features; feature += args.lanes) {
            tile[feature * args.tile + within] = values[(u64)feature * stride];
        }
    }

    S sum = args.is_average ? (S)0 : (S)args.base[0];
    if (args.outputs > 1 && lane == 0 && is_there) {
        for (u32 output = 0; output < args.outputs; output++) {
            ((S*)args.sums)[(u64)output * args.rows + row] = args.is_average ? (S)0 : (S)args.base[output];
        }
    }

    for (u32 number = 0; number < args.group_count; number++) {
        Group group = args.groups[number];
        __syncthreads();
        if (group.staged) {
            for (u32 at = threadIdx.x; at < group.nodes; at += args.tile * args.lanes) {
                staged[at] = args.nodes[group.first_node + at];
            }
            __syncthreads();
        }
        for (u32 first = 0; first < group.trees; first += args.lanes * WALKS) {
            u32 here = group.trees - first < args.lanes * WALKS ? group.trees - first : args.lanes * WALKS;
            // This thread's trees: every `lanes`th from its own on. Those beyond the last are walked for nothing.
            const Node* nodes = group.staged ? staged : args.nodes;
            u32 shift = group.staged ? group.first_node : 0;
            u32 from[WALKS], ended[WALKS];
            for (u32 k = 0; k < WALKS; k++) {
                u32 at = lane + k * args.lanes;
                from[k] = args.trees[group.first_tree + first + (at < here ? at : 0)].first - shift;
            }
            if (group.staged && args.values_staged) {
                walk(staged, from, args.tables, tile + within, args.tile, ended);
            } else if (group.staged) {
                walk(staged, from, args.tables, values, stride, ended);
            } else {
                walk(args.nodes, from, args.tables, values, stride, ended);
            }
            for (u32 k = 0; k < WALKS; k++) {
                u32 at = lane + k * args.lanes;
                if (at >= here) continue;
                if (args.lanes > 1) ends[at * args.tile + within] = from[k] + ended[k];
                else if (is_there) add_leaf(args, nodes[from[k] + ended[k]], row, sum);
            }
            if (args.lanes > 1) {
                __syncthreads();
                if (lane == 0 && is_there) {
                    for (u32 at = 0; at < here; at++) add_leaf(args, nodes[ends[at * args.tile + within]], row, sum);
                }
                __syncthreads();
            }
        }
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
