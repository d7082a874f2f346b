/* backend.c - the table of backends, best first. */
#include "backend.h"

const sb_backend *const sb_backends[] = { &sb_backend_cuda, &sb_backend_cpu, 0 };
