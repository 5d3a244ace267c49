// The limit for a ublk server: passes a block device through in C with liburing, one queue on one thread,
// with what our file target has (O_DIRECT, registered buffers and files, flush, FUA, discard, write-zeroes).
// Usage: ublk-loop DEVICE [--zero-copy] [--batch]; prints /dev/ublkbN and serves until its input ends.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/ublk_cmd.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define DEPTH 128
#define MAX_IO_BYTES (512 * 1024)
#define ZERO_COPY_IO_BYTES (1024 * 1024)
#define DISCARD_MAX_SECTORS (16 * 1024 * 2)
#define DESC_BYTES 24
// What the headers of older distributions do not have.
#define FEATURE_ZERO_COPY (1ull << 0)
#define FEATURE_AUTO_BUF_REG (1ull << 11)
#define FEATURE_BATCH_IO (1ull << 15)
#define FEATURE_NO_AUTO_PART_SCAN (1ull << 18)
#define PREP_IO_CMDS 0x25
#define COMMIT_IO_CMDS 0x26
#define FETCH_IO_CMDS 0x27
#define BATCH_HAS_BUF_ADDR 2
#define CMD_MULTISHOT 2
#define CONTROL(nr) _IOWR('u', nr, struct ublksrv_ctrl_cmd)
#define QUEUE(nr) _IOWR('u', nr, struct ublksrv_io_cmd)
#define GET_FEATURES _IOR('u', 0x13, struct ublksrv_ctrl_cmd)
#define TARGET_TAG 0x10000u
#define TAGS_FETCHED 0x20000u
#define BATCH_DONE 0x40000u
#define TAGS_GROUP 7

/** Of PREP_IO_CMDS and COMMIT_IO_CMDS; with zero copy, the address is left out. */
struct element {
  uint16_t tag, buffer_index;
  int32_t result;
};
struct addressed_element {
  struct element element;
  uint64_t address;
};
struct batch_io {
  uint16_t queue, flags, elements;
  uint8_t element_bytes, reserved[9];
};

struct server {
  int target, device, id, zero_copy, batch;
  char *buffers;
  /** Of a batch: answers that are not committed yet, and where the kernel puts tags of new requests. */
  char answers[DEPTH * sizeof(struct addressed_element)];
  unsigned answered;
  struct io_uring_buf_ring *free_tags;
  uint16_t (*tags)[DEPTH];
  struct ublksrv_io_desc *desc;
  struct io_uring control, ring;
  sem_t fetched;
};

static void fail(const char *what, int error) {
  fprintf(stderr, "ublk-loop: %s: %s\n", what, strerror(error));
  exit(1);
}

static int control(struct server *s, unsigned op, void *data, unsigned length, uint64_t value) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&s->control);
  memset(sqe, 0, 128);
  sqe->opcode = IORING_OP_URING_CMD;
  sqe->fd = s->device;
  sqe->cmd_op = op;
  struct ublksrv_ctrl_cmd *cmd = (void *)((char *)sqe + 48);
  cmd->dev_id = s->id;
  cmd->queue_id = -1;
  cmd->addr = (uint64_t)(uintptr_t)data;
  cmd->len = length;
  cmd->data[0] = value;
  io_uring_submit(&s->control);
  struct io_uring_cqe *cqe;
  int status = io_uring_wait_cqe(&s->control, &cqe);
  if (status == 0) {
    status = cqe->res;
    io_uring_cqe_seen(&s->control, cqe);
  }
  return status;
}

static void must(int status, const char *what) {
  if (status < 0) fail(what, -status);
}

/** Number in a file of the target's queue folder, or 0; of a word: whether it is there. */
static long attribute(int target, const char *name, const char *word) {
  struct stat stat;
  char path[128], text[64] = "";
  fstat(target, &stat);
  snprintf(path, sizeof path, "/sys/dev/block/%u:%u/queue/%s", major(stat.st_rdev), minor(stat.st_rdev), name);
  FILE *file = fopen(path, "r");
  if (file == NULL) return 0;
  if (fgets(text, sizeof text, file) == NULL) text[0] = 0;
  fclose(file);
  return word != NULL ? strncmp(text, word, strlen(word)) == 0 : atol(text);
}

static int log2_of(unsigned value) { return 31 - __builtin_clz(value); }

static void set_params(struct server *s) {
  uint64_t bytes;
  int logical;
  unsigned physical, least, best;
  if (ioctl(s->target, BLKGETSIZE64, &bytes) < 0) fail("size", errno);
  ioctl(s->target, BLKSSZGET, &logical);
  ioctl(s->target, BLKPBSZGET, &physical);
  ioctl(s->target, BLKIOMIN, &least);
  ioctl(s->target, BLKIOOPT, &best);
  struct ublk_params params = {.len = sizeof params, .types = UBLK_PARAM_TYPE_BASIC};
  if (attribute(s->target, "write_cache", "write back")) params.basic.attrs |= UBLK_ATTR_VOLATILE_CACHE;
  params.basic.attrs |= UBLK_ATTR_FUA;
  params.basic.logical_bs_shift = log2_of(logical);
  params.basic.physical_bs_shift = log2_of(physical);
  params.basic.io_min_shift = log2_of(least > physical ? least : physical);
  params.basic.io_opt_shift = log2_of(best > physical ? best : physical);
  params.basic.max_sectors = (s->zero_copy ? ZERO_COPY_IO_BYTES : MAX_IO_BYTES) >> 9;
  params.basic.dev_sectors = bytes >> 9;
  if (attribute(s->target, "discard_max_bytes", NULL) > 0) {
    params.types |= UBLK_PARAM_TYPE_DISCARD;
    params.discard.discard_granularity = attribute(s->target, "discard_granularity", NULL);
    params.discard.max_discard_sectors = DISCARD_MAX_SECTORS;
    params.discard.max_discard_segments = 1;
    if (attribute(s->target, "write_zeroes_max_bytes", NULL) > 0) {
      params.discard.max_write_zeroes_sectors = DISCARD_MAX_SECTORS;
    }
  }
  must(control(s, CONTROL(0x08), &params, sizeof params, 0), "SET_PARAMS");
}

/** FETCH, or COMMIT_AND_FETCH with a result. */
static void command(struct server *s, unsigned nr, unsigned tag, int result) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&s->ring);
  memset(sqe, 0, sizeof *sqe);
  sqe->opcode = IORING_OP_URING_CMD;
  sqe->flags = IOSQE_FIXED_FILE;
  sqe->fd = 1;
  sqe->cmd_op = QUEUE(nr);
  sqe->user_data = tag;
  struct ublksrv_io_cmd *cmd = (void *)((char *)sqe + 48);
  cmd->tag = tag;
  cmd->result = result;
  if (s->zero_copy) sqe->addr = tag;
  else cmd->addr = (uint64_t)(uintptr_t)(s->buffers + (size_t)tag * MAX_IO_BYTES);
}

static unsigned element_bytes(const struct server *s) {
  return s->zero_copy ? sizeof(struct element) : sizeof(struct addressed_element);
}

static struct io_uring_sqe *batch_command(struct server *s, unsigned nr, const struct batch_io *batch) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&s->ring);
  memset(sqe, 0, sizeof *sqe);
  sqe->opcode = IORING_OP_URING_CMD;
  sqe->flags = IOSQE_FIXED_FILE;
  sqe->fd = 1;
  sqe->cmd_op = _IOWR('u', nr, struct batch_io);
  memcpy((char *)sqe + 48, batch, sizeof *batch);
  return sqe;
}

static void answer_later(struct server *s, unsigned tag, int result) {
  struct addressed_element answer = {{tag, tag, result}};
  answer.address = (uint64_t)(uintptr_t)(s->buffers + (size_t)tag * MAX_IO_BYTES);
  memcpy(s->answers + s->answered++ * element_bytes(s), &answer, element_bytes(s));
}

/** The kernel reads the answers during the submission, and all of them or none: anything else ends the server. */
static void send_answers(struct server *s, unsigned nr) {
  if (s->answered == 0) return;
  const unsigned bytes = element_bytes(s);
  struct batch_io batch = {.elements = s->answered, .element_bytes = bytes};
  if (!s->zero_copy) batch.flags = BATCH_HAS_BUF_ADDR;
  struct io_uring_sqe *sqe = batch_command(s, nr, &batch);
  sqe->addr = (uint64_t)(uintptr_t)s->answers;
  sqe->len = s->answered * bytes;
  sqe->user_data = BATCH_DONE | (nr == PREP_IO_CMDS ? 0 : s->answered * bytes);
  s->answered = 0;
}

static void fetch_batches(struct server *s) {
  const struct batch_io batch = {.element_bytes = sizeof(uint16_t)};
  struct io_uring_sqe *sqe = batch_command(s, FETCH_IO_CMDS, &batch);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->rw_flags = CMD_MULTISHOT;
  sqe->buf_group = TAGS_GROUP;
  sqe->user_data = TAGS_FETCHED;
}

static void free_tags(struct server *s, unsigned index) {
  io_uring_buf_ring_add(s->free_tags, s->tags[index], sizeof s->tags[index], index, DEPTH - 1, 0);
  io_uring_buf_ring_advance(s->free_tags, 1);
}

static void start_batches(struct server *s) {
  struct io_uring_buf_reg ring = {.ring_entries = DEPTH, .bgid = TAGS_GROUP};
  if (posix_memalign((void **)&s->free_tags, 4096, DEPTH * sizeof(struct io_uring_buf))) fail("tags", ENOMEM);
  ring.ring_addr = (uint64_t)(uintptr_t)s->free_tags;
  io_uring_buf_ring_init(s->free_tags);
  must(io_uring_register_buf_ring(&s->ring, &ring, 0), "register tags");
  s->tags = calloc(DEPTH, sizeof s->tags[0]);
  for (unsigned index = 0; index < DEPTH; index++) free_tags(s, index);
  for (unsigned tag = 0; tag < DEPTH; tag++) answer_later(s, tag, 0);
  send_answers(s, PREP_IO_CMDS);
  fetch_batches(s);
}

static void target_io(struct server *s, unsigned tag) {
  const struct ublksrv_io_desc *desc = &s->desc[tag];
  const unsigned bytes = desc->nr_sectors << 9;
  const uint64_t offset = desc->start_sector << 9;
  char *buffer = s->zero_copy ? NULL : s->buffers + (size_t)tag * MAX_IO_BYTES;
  const int index = s->zero_copy ? tag : 0;
  struct io_uring_sqe *sqe = io_uring_get_sqe(&s->ring);
  switch (ublksrv_get_op(desc)) {
    case UBLK_IO_OP_READ:
      io_uring_prep_read_fixed(sqe, 0, buffer, bytes, offset, index);
      break;
    case UBLK_IO_OP_WRITE:
      io_uring_prep_write_fixed(sqe, 0, buffer, bytes, offset, index);
      if (desc->op_flags & UBLK_IO_F_FUA) sqe->rw_flags = RWF_DSYNC;
      break;
    case UBLK_IO_OP_FLUSH:
      io_uring_prep_fsync(sqe, 0, IORING_FSYNC_DATASYNC);
      break;
    case UBLK_IO_OP_DISCARD:
    case UBLK_IO_OP_WRITE_ZEROES: {
      const int keep = desc->op_flags & UBLK_IO_F_NOUNMAP;
      const int mode = (keep ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE) | FALLOC_FL_KEEP_SIZE;
      io_uring_prep_fallocate(sqe, 0, mode, offset, (uint64_t)desc->nr_sectors << 9);
      break;
    }
    default:
      io_uring_prep_nop(sqe);
  }
  sqe->flags |= IOSQE_FIXED_FILE;
  sqe->user_data = TARGET_TAG | tag;
}

static int result_of(struct server *s, unsigned tag, int result) {
  const struct ublksrv_io_desc *desc = &s->desc[tag];
  const unsigned op = ublksrv_get_op(desc);
  if (op > UBLK_IO_OP_WRITE || result < 0) return result;
  return result == (int)(desc->nr_sectors << 9) ? result : -EIO;
}

static void answer(struct server *s, unsigned tag, int result) {
  if (s->batch) answer_later(s, tag, result);
  else command(s, 0x21, tag, result);
}

/** @return whether the device was stopped */
static int take_batch(struct server *s, const struct io_uring_cqe *cqe) {
  if (cqe->user_data & BATCH_DONE) {
    const int expected = cqe->user_data & ~(uint64_t)BATCH_DONE;
    if (cqe->res != expected) fail("batch", cqe->res < 0 ? -cqe->res : EIO);
    return 0;
  }
  if (cqe->res < 0 && cqe->res != -ENOBUFS) return 1;
  if (cqe->flags & IORING_CQE_F_BUFFER) {
    const unsigned index = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
    for (int at = 0; at < cqe->res / (int)sizeof(uint16_t); at++) target_io(s, s->tags[index][at]);
    free_tags(s, index);
  }
  if (!(cqe->flags & IORING_CQE_F_MORE)) fetch_batches(s);
  return 0;
}

static void *serve(void *of) {
  struct server *s = of;
  const unsigned flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  must(io_uring_queue_init(DEPTH * 2, &s->ring, flags), "io_uring_queue_init");
  io_uring_register_ring_fd(&s->ring);
  const int files[] = {s->target, s->device};
  must(io_uring_register_files(&s->ring, files, 2), "register files");
  if (s->zero_copy) {
    must(io_uring_register_buffers_sparse(&s->ring, DEPTH), "register buffers");
  } else {
    const struct iovec all = {s->buffers, (size_t)DEPTH * MAX_IO_BYTES};
    must(io_uring_register_buffers(&s->ring, &all, 1), "register buffers");
  }
  if (s->batch) start_batches(s);
  else for (unsigned tag = 0; tag < DEPTH; tag++) command(s, 0x20, tag, 0);
  must(io_uring_submit(&s->ring), "FETCH_REQ");
  const size_t length = (DEPTH * DESC_BYTES + 4095) & ~4095ul;
  s->desc = mmap(NULL, length, PROT_READ, MAP_SHARED | MAP_POPULATE, s->device, 0);
  if (s->desc == MAP_FAILED) fail("descriptors", errno);
  sem_post(&s->fetched);
  for (unsigned live = s->batch ? 1 : DEPTH; live > 0;) {
    send_answers(s, COMMIT_IO_CMDS);
    io_uring_submit_and_wait(&s->ring, 1);
    struct io_uring_cqe *cqe;
    unsigned head, seen = 0;
    io_uring_for_each_cqe(&s->ring, head, cqe) {
      const unsigned tag = cqe->user_data & 0xffff;
      if (cqe->user_data & TARGET_TAG) answer(s, tag, result_of(s, tag, cqe->res));
      else if (cqe->user_data & (TAGS_FETCHED | BATCH_DONE)) live -= take_batch(s, cqe);
      else if (cqe->res == UBLK_IO_RES_OK) target_io(s, tag);
      else live--;
      seen++;
    }
    io_uring_cq_advance(&s->ring, seen);
  }
  munmap(s->desc, length);
  io_uring_queue_exit(&s->ring);
  return NULL;
}

static void add_device(struct server *s) {
  uint64_t features = 0;
  must(control(s, GET_FEATURES, &features, sizeof features, 0), "GET_FEATURES");
  struct ublksrv_ctrl_dev_info info = {.nr_hw_queues = 1, .queue_depth = DEPTH, .max_io_buf_bytes = MAX_IO_BYTES};
  info.dev_id = -1;
  info.flags = features & FEATURE_NO_AUTO_PART_SCAN;
  if (s->zero_copy) {
    const uint64_t wanted = FEATURE_ZERO_COPY | FEATURE_AUTO_BUF_REG;
    if ((features & wanted) != wanted) fail("zero copy", EOPNOTSUPP);
    info.flags |= wanted;
    info.max_io_buf_bytes = ZERO_COPY_IO_BYTES;
  }
  if (s->batch) {
    if ((features & FEATURE_BATCH_IO) == 0) fail("batch", EOPNOTSUPP);
    info.flags |= FEATURE_BATCH_IO;
  }
  must(control(s, CONTROL(0x04), &info, sizeof info, 0), "ADD_DEV");
  s->id = info.dev_id;
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  struct server s = {.id = -1};
  for (int at = 2; at < argc; at++) {
    if (strcmp(argv[at], "--zero-copy") == 0) s.zero_copy = 1;
    else if (strcmp(argv[at], "--batch") == 0) s.batch = 1;
    else return 2;
  }
  s.target = open(argv[1], O_RDWR | O_DIRECT | O_EXCL | O_CLOEXEC);
  if (s.target < 0) fail(argv[1], errno);
  const int control_device = open("/dev/ublk-control", O_RDWR | O_CLOEXEC);
  if (control_device < 0) fail("/dev/ublk-control", errno);
  must(io_uring_queue_init(4, &s.control, IORING_SETUP_SQE128), "control ring");
  s.device = control_device;
  add_device(&s);
  set_params(&s);
  char path[32];
  snprintf(path, sizeof path, "/dev/ublkc%d", s.id);
  const int queue_device = open(path, O_RDWR | O_CLOEXEC);
  if (queue_device < 0) fail(path, errno);
  s.buffers = mmap(NULL, (size_t)DEPTH * MAX_IO_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (s.buffers == MAP_FAILED) fail("buffers", errno);
  memset(s.buffers, 0, (size_t)DEPTH * MAX_IO_BYTES);
  sem_init(&s.fetched, 0, 0);
  struct server queue = s;
  queue.device = queue_device;
  pthread_t thread;
  pthread_create(&thread, NULL, serve, &queue);
  sem_wait(&queue.fetched);
  must(control(&s, CONTROL(0x06), NULL, 0, getpid()), "START_DEV");
  printf("/dev/ublkb%d\n", s.id);
  fflush(stdout);
  while (getchar() != EOF) {
  }
  must(control(&s, CONTROL(0x07), NULL, 0, 0), "STOP_DEV");
  pthread_join(thread, NULL);
  close(queue_device);
  must(control(&s, CONTROL(0x05), NULL, 0, 0), "DEL_DEV");
  return 0;
}
