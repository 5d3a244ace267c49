#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "file.h"

/**
 * The kernel's device mapper, asked by ioctl(2): no program is started for it, and nothing is read from a disk. Those who
 * answer a status answer 0, or a negative errno.
 */
class Mapper {
 public:
  Mapper();

  /** 0, or the negative errno of opening it. */
  int64_t status() const { return control_ < 0 ? control_ : 0; }

  /**
   * A line for each target, as in `dmsetup table`; for types that may have keys or states (all but linear, striped
   * and thin) without the rest after the type. Empty if there is no table.
   * @param suspended set, in the same call, to whether the node is suspended
   */
  int64_t Table(dev_t node, bool waiting, std::string& lines, bool* suspended = nullptr) const;

  /** DM_DEV_SUSPEND without its flag: makes a table in waiting the live one, and resumes. */
  int64_t Exchange(dev_t node) const;

  /** Drops the table in waiting where it is this one. @returns also -EBUSY: another one waits, and stays */
  int64_t Clear(dev_t node, const std::string& table) const;

  /**
   * Resumes a suspended node with its own table; any other is left alone.
   * @returns also -EBUSY: a table waits, which would become the live one
   */
  int64_t Resume(dev_t node) const;

 private:
  File control_;
};

/** The file system of the process may lie on a suspended node. @returns 0, or a negative errno */
int64_t StayInMemory();

dev_t NodeOf(const char* major, const char* minor);
