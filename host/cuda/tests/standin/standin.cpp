// A stand-in for NVIDIA's driver, for tests only: the entry points that the host calls, over the kernels compiled for this
// processor. Work is done when a stream is waited for, not when it is submitted, so that a wait that is missing shows. What
// can go wrong with a device can be made to: see `standin_set`.
#include "shim.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <map>
#include <mutex>
#include <string>

#include "common.cuh"
#include "forest.cu"
#include "explain.cu"

namespace {

using Clock = std::chrono::steady_clock;

enum Code { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700, LAUNCH_OUT_OF_RESOURCES = 701 };

struct Kernel {
    const char* name;
    // Copies the parameter, as the driver does, and gives back what runs it.
    std::function<void()> (*bind)(void**);
};

template <class A, void (*kernel)(A)>
std::function<void()> bind(void** parameters) {
    A args;
    std::memcpy(&args, parameters[0], sizeof(A));
    return [args] { kernel(args); };
}

const Kernel KERNELS[] = {
    {"forest_f32_f32", bind<ForestArgs, forest_f32_f32>},
    {"forest_f32_f64", bind<ForestArgs, forest_f32_f64>},
    {"forest_f64_f32", bind<ForestArgs, forest_f64_f32>},
    {"forest_f64_f64", bind<ForestArgs, forest_f64_f64>},
    {"cases_f32", bind<CasesArgs, cases_f32>},
    {"cases_f64", bind<CasesArgs, cases_f64>},
    {"explain_sums", bind<SumsArgs, explain_sums>},
};

struct Stream {
    std::deque<std::function<void()>> work;
    Clock::time_point began;
};

std::recursive_mutex lock;
std::map<std::string, long> settings;
std::map<std::string, long> counts;
std::map<uint64_t, shim::Guarded> memory;
std::map<void*, size_t> pinned;
std::vector<Stream*> streams;
bool is_lost = false;

long setting(const char* name, long otherwise) {
    auto found = settings.find(name);
    return found == settings.end() ? otherwise : found->second;
}

size_t used() {
    size_t sum = 0;
    for (auto& each : memory) sum += each.second.bytes;
    return sum;
}

bool is_held(uint64_t address, size_t bytes) {
    auto after = memory.upper_bound(address);
    if (after == memory.begin()) return false;
    auto& [start, held] = *std::prev(after);
    return address + bytes <= start + held.bytes;
}

bool is_pinned(const void* address, size_t bytes) {
    auto after = pinned.upper_bound((void*)address);
    if (after == pinned.begin()) return false;
    auto& [start, held] = *std::prev(after);
    return (const char*)address + bytes <= (char*)start + held;
}

void submit(Stream* stream, std::function<void()> work) {
    if (stream->work.empty()) stream->began = Clock::now();
    stream->work.push_back(std::move(work));
}

void finish(Stream* stream) {
    while (!stream->work.empty()) {
        auto work = std::move(stream->work.front());
        stream->work.pop_front();
        work();
    }
}

}  // namespace

#define ENTRY extern "C" int
#define GUARD \
    std::lock_guard<std::recursive_mutex> guard(lock); \
    if (is_lost) return ILLEGAL_ADDRESS

// Settings: `memory` bytes of the device; `devices`; `lose_after` so many launches; `stays_lost` for so many resets;
// `slow_ms` until work is done; `hangs`; `wrong` (1) copies back a wrong bit; `no_launch` (1) refuses launches; `seed`.
extern "C" void standin_set(const char* name, long value) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    settings[name] = value;
}

extern "C" void standin_reset() {
    std::lock_guard<std::recursive_mutex> guard(lock);
    settings.clear();
    counts.clear();
    is_lost = false;
}

extern "C" long standin_count(const char* name) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    return std::string(name) == "memory" ? (long)used() : counts[name];
}

ENTRY cuInit(unsigned) { return SUCCESS; }
ENTRY cuDriverGetVersion(int* version) { *version = 12080; return SUCCESS; }
ENTRY cuDeviceGetCount(int* count) { *count = (int)setting("devices", 1); return SUCCESS; }
ENTRY cuDeviceGet(int* device, int ordinal) { *device = ordinal; return SUCCESS; }
ENTRY cuDeviceGetName(char* name, int size, int) { std::snprintf(name, (size_t)size, "stand-in"); return SUCCESS; }
ENTRY cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = (size_t)setting("memory", 1l << 30); return SUCCESS; }
ENTRY cuDeviceGetAttribute(int* value, int attribute, int) {
    switch (attribute) {
        case 16: *value = 4; break;           // multiprocessors
        case 75: *value = 9; break;           // compute capability
        case 76: *value = 0; break;
        case 97: *value = (int)setting("shared", 99 << 10); break;  // shared memory, if asked for
        default: *value = 0;
    }
    return SUCCESS;
}
ENTRY cuDevicePrimaryCtxRetain(void** context, int) { GUARD; *context = (void*)16; counts["opened"]++; return SUCCESS; }
ENTRY cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
ENTRY cuDevicePrimaryCtxReset_v2(int) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    counts["resets"]++;
    if (is_lost && setting("stays_lost", 0) > 0) settings["stays_lost"]--;
    else is_lost = false;
    return SUCCESS;
}
ENTRY cuCtxSetCurrent(void*) { return SUCCESS; }
ENTRY cuGetErrorString(int, const char** text) { *text = "an error of the stand-in"; return SUCCESS; }
ENTRY cuGetErrorName(int, const char** text) { *text = "STANDIN"; return SUCCESS; }

ENTRY cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    GUARD;
    if (bytes == 0) return INVALID_VALUE;
    if (used() + bytes > (size_t)setting("memory", 1l << 30)) return OUT_OF_MEMORY;
    shim::Guarded held;
    held.take(bytes, 0xFF);
    *address = (uint64_t)held.start;
    memory[*address] = held;
    return SUCCESS;
}
ENTRY cuMemFree_v2(uint64_t address) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    auto found = memory.find(address);
    if (found == memory.end()) return INVALID_VALUE;
    for (Stream* stream : streams) finish(stream);
    found->second.give_back();
    memory.erase(found);
    return is_lost ? ILLEGAL_ADDRESS : SUCCESS;
}
ENTRY cuMemHostAlloc(void** address, size_t bytes, unsigned) {
    GUARD;
    *address = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    pinned[*address] = bytes;
    return SUCCESS;
}
ENTRY cuMemFreeHost(void* address) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    pinned.erase(address);
    std::free(address);
    return SUCCESS;
}
ENTRY cuMemcpyHtoD_v2(uint64_t to, const void* from, size_t bytes) {
    GUARD;
    if (bytes > 0 && !is_held(to, bytes)) return INVALID_VALUE;
    std::memcpy((void*)to, from, bytes);
    return SUCCESS;
}
ENTRY cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, Stream* stream) {
    GUARD;
    if (!is_held(to, bytes) || !is_pinned(from, bytes)) return INVALID_VALUE;
    submit(stream, [=] { std::memcpy((void*)to, from, bytes); });
    return SUCCESS;
}
ENTRY cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, Stream* stream) {
    GUARD;
    if (!is_held(from, bytes) || !is_pinned(to, bytes)) return INVALID_VALUE;
    submit(stream, [=] {
        std::memcpy(to, (void*)from, bytes);
        if (setting("wrong", 0)) *(uint8_t*)to ^= 1;
    });
    return SUCCESS;
}
ENTRY cuStreamCreate(Stream** stream, unsigned) {
    GUARD;
    *stream = new Stream;
    streams.push_back(*stream);
    return SUCCESS;
}
ENTRY cuStreamDestroy_v2(Stream* stream) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    finish(stream);
    streams.erase(std::find(streams.begin(), streams.end(), stream));
    delete stream;
    return SUCCESS;
}
ENTRY cuStreamQuery(Stream* stream) {
    GUARD;
    if (setting("hangs", 0)) return NOT_READY;
    if (!stream->work.empty() && Clock::now() - stream->began < std::chrono::milliseconds(setting("slow_ms", 0))) return NOT_READY;
    finish(stream);
    return is_lost ? ILLEGAL_ADDRESS : SUCCESS;
}

ENTRY cuModuleLoadData(void** module, const void*) { GUARD; *module = (void*)32; return SUCCESS; }
ENTRY cuModuleUnload(void*) { return SUCCESS; }
ENTRY cuModuleGetFunction(const Kernel** function, void*, const char* name) {
    GUARD;
    for (const Kernel& kernel : KERNELS) {
        if (std::strcmp(kernel.name, name) == 0) {
            *function = &kernel;
            return SUCCESS;
        }
    }
    return NOT_FOUND;
}
ENTRY cuFuncSetAttribute(const Kernel*, int, int value) {
    return value <= (int)setting("shared", 99 << 10) ? SUCCESS : INVALID_VALUE;
}
ENTRY cuLaunchKernel(
    const Kernel* kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
    unsigned block_z, unsigned shared_bytes, Stream* stream, void** parameters, void**) {
    GUARD;
    if (setting("no_launch", 0)) return LAUNCH_OUT_OF_RESOURCES;
    bool fits = grid_x > 0 && grid_y > 0 && grid_y <= 65535 && grid_z == 1 && block_x > 0 && block_x <= 1024 && block_y == 1 &&
        block_z == 1 && shared_bytes <= (unsigned)setting("shared", 99 << 10);
    if (!fits) return INVALID_VALUE;
    counts["launches"]++;
    if (setting("lose_after", -1) == 0) {
        settings.erase("lose_after");
        is_lost = true;
        return ILLEGAL_ADDRESS;
    }
    if (setting("lose_after", -1) > 0) settings["lose_after"]--;
    auto work = kernel->bind(parameters);
    uint64_t seed = (uint64_t)setting("seed", 1) * 1000003u + (uint64_t)counts["launches"];
    submit(stream, [=] { shim::launch(work, {grid_x, grid_y, 1}, block_x, shared_bytes, seed); });
    return SUCCESS;
}
