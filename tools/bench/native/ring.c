// The C side of the ring benchmark: NOPs in batches on a SINGLE_ISSUER | DEFER_TASKRUN ring.
// Usage: ring BATCH NOPS; prints nanoseconds per NOP.
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e9 + now.tv_nsec;
}

static long run(struct io_uring *ring, unsigned batch, long nops) {
  long sum = 0;
  for (long done = 0; done < nops; done += batch) {
    for (unsigned i = 0; i < batch; i++) {
      struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
      io_uring_prep_nop(sqe);
      sqe->user_data = i;
    }
    io_uring_submit_and_wait(ring, batch);
    struct io_uring_cqe *cqe;
    unsigned head, seen = 0;
    io_uring_for_each_cqe(ring, head, cqe) {
      sum += cqe->res + (long)cqe->user_data;
      seen++;
    }
    io_uring_cq_advance(ring, seen);
  }
  return sum;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  const unsigned batch = atoi(argv[1]);
  const long nops = atol(argv[2]);
  struct io_uring ring;
  const unsigned flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  const int status = io_uring_queue_init(256, &ring, flags);
  if (status < 0) {
    fprintf(stderr, "io_uring_queue_init: %d\n", status);
    return 1;
  }
  io_uring_register_ring_fd(&ring);
  long sum = run(&ring, batch, nops / 10);
  const double start = now_ns();
  sum += run(&ring, batch, nops);
  printf("%.1f\n", (now_ns() - start) / nops);
  return sum == -1;
}
