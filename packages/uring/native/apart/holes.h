#pragma once

#include <cstdint>
#include <string>

/**
 * Holes of a file, and of the file behind a loop device, whose page cache is written back first: a line
 * "START LENGTH" for each that is large enough, in order. What lies behind the last one that limit_ms let it
 * find, or behind the end of a file, is none.
 * @returns 0, or a negative errno: -ENOTTY for a device of another kind
 */
int64_t Holes(const char* path, int64_t limit_ms, std::string& lines);
