// Metal's compute language for clang++ on a CPU: included before a kernel's source.
//
// With -DMSL_LINT=1 address spaces are types, for -fsyntax-only; without it they are
// erased, so that sanitizers instrument every access. No C++ library header comes in:
// a function Metal does not have is undeclared here too.
#pragma once
#include "runtime.h"
#include "shim_types.h"
#include "shim_math.h"
#include "shim_simd.h"
#include "shim_memory.h"
#include "shim_constructors.h"
