// Areas under the curve of resampled rows.
//
// Draws are the processor's: Philox4x32-10 of Salmon and others (2011), a function of seed, resample and draw, so a thread
// computes any of them by itself. A resample is kept as how often each row was drawn, by the row's place in the order of
// scores. The area is then a sum over that order, in integers: chunks of it, which end where a tie ends, are summed by a
// thread each and joined by a rule that is associative. Nothing is rounded, so the order of joining does not matter.

DEVICE u32 high(u32 a, u32 b) { return (u32)(((u64)a * (u64)b) >> 32); }

// Block `at` of stream `number`: two words of 64 bits.
DEVICE void philox(u64 seed, u32 number, u64 at, u64& first, u64& second) {
    u32 a = (u32)at, b = (u32)(at >> 32), c = number, d = 0;
    u32 x = (u32)seed, y = (u32)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        u32 high_a = high(0xD2511F53u, a), low_a = 0xD2511F53u * a;
        u32 high_c = high(0xCD9E8D57u, c), low_c = 0xCD9E8D57u * c;
        a = high_c ^ b ^ x;
        b = low_c;
        c = high_a ^ d ^ y;
        d = low_a;
        x += 0x9E3779B9u;
        y += 0xBB67AE85u;
    }
    first = (u64)a | ((u64)b << 32);
    second = (u64)c | ((u64)d << 32);
}

// The upper 64 of the 96 bits of word times bound.
DEVICE u32 below(u64 word, u32 bound) {
    u64 low = (word & 0xffffffffull) * bound;
    return (u32)(((word >> 32) * bound + (low >> 32)) >> 32);
}

struct DrawArgs {
    // By row, its place in the order of scores.
    const u32* place_of;
    // By resample, then place.
    u32* counts;
    u64 seed;
    u32 first_resample;
    u32 rows;
};

KERNEL draw_rows(DrawArgs args) {
    u32* counts = args.counts + (u64)blockIdx.y * args.rows;
    u64 step = (u64)gridDim.x * blockDim.x, blocks = ((u64)args.rows + 1) / 2;
    for (u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x; at < blocks; at += step) {
        u64 first, second;
        philox(args.seed, args.first_resample + blockIdx.y, at, first, second);
        atomicAdd(counts + args.place_of[below(first, args.rows)], 1u);
        if (2 * at + 1 < args.rows) atomicAdd(counts + args.place_of[below(second, args.rows)], 1u);
    }
}

struct Area {
    u64 halves;
    u64 positive;
    u64 negative;
};

// One part of the order and the next: what is positive in the next is above all that is negative in this one.
DEVICE Area join(Area low, Area next) {
    Area both;
    both.halves = low.halves + next.halves + 2 * next.positive * low.negative;
    both.positive = low.positive + next.positive;
    both.negative = low.negative + next.negative;
    return both;
}

struct AreaArgs {
    // By place, bit 1 whether its row is positive, bit 0 whether a tie ends there.
    const u8* marks;
    const u32* counts;
    // Where each chunk starts, and where the last one ends.
    const u32* starts;
    // By resample, then block.
    Area* parts;
    u32 rows;
    u32 chunks;
};

KERNEL area_parts(AreaArgs args) {
    SHARED_MEMORY(shared);
    Area* joined = (Area*)shared;
    const u32* counts = args.counts + (u64)blockIdx.y * args.rows;
    u32 chunk = blockIdx.x * blockDim.x + threadIdx.x;
    Area area = {0, 0, 0};
    if (chunk < args.chunks) {
        u64 positive = 0, negative = 0;
        for (u32 at = args.starts[chunk]; at < args.starts[chunk + 1]; at++) {
            u64 times = counts[at];
            u8 mark = args.marks[at];
            if (mark & 2) positive += times; else negative += times;
            if (mark & 1) {
                area.halves += positive * (2 * area.negative + negative);
                area.positive += positive;
                area.negative += negative;
                positive = 0;
                negative = 0;
            }
        }
    }
    joined[threadIdx.x] = area;
    for (u32 step = 1; step < blockDim.x; step *= 2) {
        __syncthreads();
        if (threadIdx.x % (2 * step) == 0 && threadIdx.x + step < blockDim.x) {
            joined[threadIdx.x] = join(joined[threadIdx.x], joined[threadIdx.x + step]);
        }
    }
    if (threadIdx.x == 0) args.parts[(u64)blockIdx.y * gridDim.x + blockIdx.x] = joined[0];
}
