// Rings: set up and torn down by liburing, driven from TypeScript.
//
// The submission and completion rings and the SQE array are handed out as ArrayBuffers; after that
// `enter` is the only call that the data path makes.
#include <liburing.h>
#include <unistd.h>

#include <cstddef>

#include "convert.h"

namespace uring {
namespace {

// What the TypeScript side (src/abi.ts, src/ring.ts) takes for granted of the kernel's structures.
static_assert(sizeof(io_uring_sqe) == 64 && sizeof(io_uring_cqe) == 16);
static_assert(offsetof(io_uring_sqe, opcode) == 0 && offsetof(io_uring_sqe, flags) == 1);
static_assert(offsetof(io_uring_sqe, fd) == 4 && offsetof(io_uring_sqe, off) == 8);
static_assert(offsetof(io_uring_sqe, cmd_op) == 8 && offsetof(io_uring_sqe, addr) == 16);
static_assert(offsetof(io_uring_sqe, len) == 24 && offsetof(io_uring_sqe, rw_flags) == 28);
static_assert(offsetof(io_uring_sqe, user_data) == 32 && offsetof(io_uring_sqe, buf_index) == 40);
static_assert(offsetof(io_uring_sqe, file_index) == 44 && offsetof(io_uring_sqe, cmd) == 48);
static_assert(offsetof(io_uring_cqe, res) == 8 && offsetof(io_uring_cqe, flags) == 12);

// IORING_SETUP_NO_SQARRAY (Linux 6.6), which older headers do not have.
constexpr unsigned kNoSqArray = 1U << 16;

struct Ring {
  io_uring ring{};
  bool open = false;

  Ring() = default;
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  ~Ring() { Close(); }

  void Close() {
    if (open) io_uring_queue_exit(&ring);
    open = false;
    // A call that comes too late must not reach another file that got the same number.
    ring.ring_fd = -1;
  }
};

Napi::Object Offsets(Napi::Env env, const io_uring_params& params) {
  auto offsets = Napi::Object::New(env);
  offsets["sqHead"] = params.sq_off.head;
  offsets["sqTail"] = params.sq_off.tail;
  offsets["sqMask"] = params.sq_off.ring_mask;
  offsets["sqFlags"] = params.sq_off.flags;
  offsets["sqDropped"] = params.sq_off.dropped;
  // Without the array its offset says 0, which is where the heads and tails are.
  if ((params.flags & kNoSqArray) == 0) offsets["sqArray"] = params.sq_off.array;
  offsets["cqHead"] = params.cq_off.head;
  offsets["cqTail"] = params.cq_off.tail;
  offsets["cqMask"] = params.cq_off.ring_mask;
  offsets["cqOverflow"] = params.cq_off.overflow;
  offsets["cqes"] = params.cq_off.cqes;
  return offsets;
}

// createRing(entries, cqEntries, flags) -> object, or a negative errno
Napi::Value CreateRing(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  io_uring_params params{};
  params.flags = U32(info, 2) | IORING_SETUP_CQSIZE;
  params.cq_entries = U32(info, 1);
  auto shared = std::make_shared<Ring>();
  // Not io_uring_queue_init_params: from liburing 2.6 on it asks for rings without an SQ array by
  // itself, and before 2.5 it writes one where there is none.
  const int fd = io_uring_setup(U32(info, 0), &params);
  if (fd < 0) return Number(env, fd);
  const bool single = (params.features & IORING_FEAT_SINGLE_MMAP) != 0;
  const int status = single ? io_uring_queue_mmap(fd, &params, &shared->ring) : -ENOSYS;
  if (status < 0) {
    close(fd);
    return Number(env, status);
  }
  shared->ring.features = params.features;
  shared->open = true;

  io_uring& ring = shared->ring;
  const size_t sqe_bytes = (params.flags & IORING_SETUP_SQE128) ? 128 : 64;
  auto result = Napi::Object::New(env);
  result["fd"] = ring.ring_fd;
  result["features"] = params.features;
  result["sqEntries"] = params.sq_entries;
  result["cqEntries"] = params.cq_entries;
  result["offsets"] = Offsets(env, params);
  // liburing owns these two mappings: the buffers only look at them, and keep the ring alive.
  result["rings"] = WrapMemory(env, ring.sq.ring_ptr, ring.sq.ring_sz, shared);
  result["sqes"] = WrapMemory(env, ring.sq.sqes, params.sq_entries * sqe_bytes, shared);
  result["handle"] = Handle(env, shared);
  return result;
}

// closeRing(handle, ringsBuffer, sqesBuffer)
Napi::Value CloseRing(const Napi::CallbackInfo& info) {
  Detach(info.Env(), info[1]);
  Detach(info.Env(), info[2]);
  FromHandle<Ring>(info, 0).Close();
  return info.Env().Undefined();
}

// enter(fd, toSubmit, minComplete, flags) -> number submitted, or a negative errno. Written on the
// C interface: this is the call of the data path.
napi_value Enter(napi_env env, napi_callback_info info) {
  size_t count = 4;
  napi_value args[4];
  int32_t values[4] = {0, 0, 0, 0};
  napi_get_cb_info(env, info, &count, args, nullptr, nullptr);
  for (size_t i = 0; i < 4; i++) napi_get_value_int32(env, args[i], &values[i]);
  const int status = io_uring_enter(values[0], values[1], values[2], values[3], nullptr);
  napi_value result;
  napi_create_int32(env, status, &result);
  return result;
}

// registerFilesSparse(handle, count)
Napi::Value RegisterFilesSparse(const Napi::CallbackInfo& info) {
  auto& ring = FromHandle<Ring>(info, 0).ring;
  return Number(info.Env(), io_uring_register_files_sparse(&ring, U32(info, 1)));
}

// updateFile(handle, index, fd): fd -1 empties the place
Napi::Value UpdateFile(const Napi::CallbackInfo& info) {
  auto& ring = FromHandle<Ring>(info, 0).ring;
  int fd = I32(info, 2);
  return Number(info.Env(), io_uring_register_files_update(&ring, U32(info, 1), &fd, 1));
}

// registerBuffersSparse(handle, count)
Napi::Value RegisterBuffersSparse(const Napi::CallbackInfo& info) {
  auto& ring = FromHandle<Ring>(info, 0).ring;
  return Number(info.Env(), io_uring_register_buffers_sparse(&ring, U32(info, 1)));
}

// updateBuffer(handle, index, address, length): length 0 empties the place
Napi::Value UpdateBuffer(const Napi::CallbackInfo& info) {
  auto& ring = FromHandle<Ring>(info, 0).ring;
  iovec vector{reinterpret_cast<void*>(U64(info, 2)), static_cast<size_t>(U64(info, 3))};
  __u64 tag = 0;
  return Number(info.Env(), io_uring_register_buffers_update_tag(&ring, U32(info, 1),
                                                                 &vector, &tag, 1));
}

// registerRingFd(handle) -> index to enter with IORING_ENTER_REGISTERED_RING, or a negative errno
Napi::Value RegisterRingFd(const Napi::CallbackInfo& info) {
  auto& ring = FromHandle<Ring>(info, 0).ring;
  const int status = io_uring_register_ring_fd(&ring);
  return Number(info.Env(), status < 0 ? status : ring.enter_ring_fd);
}

// limitWorkers(handle, bounded): of this thread, for all its rings
Napi::Value LimitWorkers(const Napi::CallbackInfo& info) {
  auto& ring = FromHandle<Ring>(info, 0).ring;
  unsigned limits[2] = {U32(info, 1), 0};
  return Number(info.Env(), io_uring_register_iowq_max_workers(&ring, limits));
}

}  // namespace

void InitRing(Napi::Env env, Napi::Object exports) {
  exports["createRing"] = Napi::Function::New(env, CreateRing, "createRing");
  exports["closeRing"] = Napi::Function::New(env, CloseRing, "closeRing");
  exports["registerFilesSparse"] =
      Napi::Function::New(env, RegisterFilesSparse, "registerFilesSparse");
  exports["updateFile"] = Napi::Function::New(env, UpdateFile, "updateFile");
  exports["registerBuffersSparse"] =
      Napi::Function::New(env, RegisterBuffersSparse, "registerBuffersSparse");
  exports["updateBuffer"] = Napi::Function::New(env, UpdateBuffer, "updateBuffer");
  exports["registerRingFd"] = Napi::Function::New(env, RegisterRingFd, "registerRingFd");
  exports["limitWorkers"] = Napi::Function::New(env, LimitWorkers, "limitWorkers");
  napi_value enter;
  napi_create_function(env, "enter", NAPI_AUTO_LENGTH, Enter, nullptr, &enter);
  exports["enter"] = Napi::Value(env, enter);
}

}  // namespace uring
