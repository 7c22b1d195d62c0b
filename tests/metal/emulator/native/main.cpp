// A kernel as a program: reads a job file, writes its outputs. For sanitizer builds.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "runtime.h"

extern "C" {
void msl_entry(void**, const msl_builtins*);
int msl_dispatch(msl_entry_fn, void**, const uint32_t* grid,
                 const uint32_t* threadgroup, const uint32_t* options, uint64_t* stats,
                 char* error, int error_bytes);
}

int main(int, char** argv) {
  FILE* job = fopen(argv[1], "rb");
  uint32_t header[12];  // grid, threadgroup, options, number of buffers
  if (!job || fread(header, 4, 12, job) != 12) return 3;
  const uint32_t n = header[11];
  std::vector<uint64_t> n_bytes(n);
  std::vector<uint32_t> is_output(n);
  std::vector<void*> buffers(n);
  for (uint32_t i = 0; i < n; i++) {
    if (fread(&n_bytes[i], 8, 1, job) != 1) return 3;
    if (fread(&is_output[i], 4, 1, job) != 1) return 3;
    buffers[i] = malloc(n_bytes[i]);
    if (n_bytes[i] && fread(buffers[i], 1, n_bytes[i], job) != n_bytes[i]) return 3;
  }
  fclose(job);
  char error[2048];
  uint64_t stats[4];
  if (msl_dispatch(msl_entry, buffers.data(), header, header + 3, header + 6, stats,
                   error, sizeof error)) {
    fprintf(stderr, "KERNEL ERROR %s\n", error);
    return 2;
  }
  FILE* results = fopen(argv[2], "wb");
  for (uint32_t i = 0; i < n; i++)
    if (is_output[i]) fwrite(buffers[i], 1, n_bytes[i], results);
  fclose(results);
  return 0;
}
