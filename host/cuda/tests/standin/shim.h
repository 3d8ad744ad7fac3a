// The kernels' sources on the processor, for tests.
//
// A block's threads are fibers. Between two barriers they run one after the other in an order that a seed permutes, so what
// depends on their order shows as different numbers. A barrier is a switch back; all threads that are not done must stand at
// the same one. Shared memory ends at a page that nobody may touch and begins with poison. What one thread writes while
// another reads without a barrier is found only where the order matters to the result.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

namespace shim {

struct Dim { unsigned x, y, z; };
inline Dim thread, block, block_size, grid_size;

[[noreturn]] inline void fail(const char* what) {
    std::fprintf(stderr, "stand-in: %s\n", what);
    std::abort();
}

// Memory that ends where a page begins that nobody may touch; aligned to 16.
struct Guarded {
    uint8_t* pages = nullptr;
    size_t mapped = 0, bytes = 0;
    uint8_t* start = nullptr;

    void take(size_t wanted, int poison) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        bytes = wanted;
        size_t room = (bytes + 15) / 16 * 16;
        mapped = (room + page - 1) / page * page + page;
        pages = (uint8_t*)mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pages == MAP_FAILED) fail("no memory");
        mprotect(pages + mapped - page, page, PROT_NONE);
        std::memset(pages, 0xC3, mapped - page);
        start = pages + mapped - page - room;
        std::memset(start, poison, bytes);
    }

    void give_back() {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        for (uint8_t* at = pages; at < pages + mapped - page; at++) {
            if ((at < start || at >= start + bytes) && *at != 0xC3) fail("a kernel wrote outside of its memory");
        }
        munmap(pages, mapped);
        pages = nullptr;
    }
};

struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    bool is_done;
    int line;
};

inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline Fiber* running;
inline const std::function<void()>* body;
inline Guarded shared_memory;

inline uint8_t* shared() { return shared_memory.start; }

inline void enter() {
    (*body)();
    running->is_done = true;
    swapcontext(&running->context, &scheduler);
}

inline void barrier(int line) {
    running->line = line;
    swapcontext(&running->context, &scheduler);
}

inline void run_block(unsigned threads, std::mt19937_64& order) {
    if (fibers.size() < threads) fibers.resize(threads);
    std::vector<unsigned> alive(threads);
    for (unsigned at = 0; at < threads; at++) {
        Fiber& fiber = fibers[at];
        fiber.stack.resize(64 << 10);
        fiber.is_done = false;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, enter, 0);
        alive[at] = at;
    }
    while (!alive.empty()) {
        std::shuffle(alive.begin(), alive.end(), order);
        std::vector<unsigned> waiting;
        for (unsigned at : alive) {
            running = &fibers[at];
            thread = {at, 0, 0};
            swapcontext(&scheduler, &running->context);
            if (!running->is_done) waiting.push_back(at);
        }
        for (unsigned at : waiting) {
            if (fibers[at].line != fibers[waiting[0]].line) fail("threads of a block wait at different barriers");
        }
        alive = waiting;
    }
}

inline void launch(const std::function<void()>& kernel, Dim grid, unsigned threads, size_t shared_bytes, uint64_t seed) {
    std::mt19937_64 order(seed);
    grid_size = grid;
    block_size = {threads, 1, 1};
    body = &kernel;
    std::vector<unsigned> blocks(grid.x * grid.y);
    for (unsigned at = 0; at < blocks.size(); at++) blocks[at] = at;
    std::shuffle(blocks.begin(), blocks.end(), order);
    for (unsigned at : blocks) {
        block = {at % grid.x, at / grid.x, 0};
        // NaN as a number, far away as an index.
        shared_memory.take(shared_bytes, 0xFF);
        run_block(threads, order);
        shared_memory.give_back();
    }
}

}  // namespace shim

#define SHARED_MEMORY(name) uint8_t* name = shim::shared()
#define KERNEL static void
#define DEVICE static inline
#define __align__(bytes) alignas(bytes)
#define threadIdx shim::thread
#define blockIdx shim::block
#define blockDim shim::block_size
#define gridDim shim::grid_size
#define __syncthreads() shim::barrier(__LINE__)
