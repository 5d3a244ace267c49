#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

inline int64_t Checked(int64_t value) { return value < 0 ? -errno : value; }

/** An open file; a negative value is the errno. */
class File {
 public:
  File(const char* path, int flags)
      : fd_(static_cast<int>(Checked(open(path, flags | O_CLOEXEC)))) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  operator int() const { return fd_; }

 private:
  int fd_;
};
