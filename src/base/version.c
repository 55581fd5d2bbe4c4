#include "base/version.h"

/* The Makefile rebuilds this file alone when the commit changes. */
#ifndef CRIA_COMMIT
#define CRIA_COMMIT "unknown"
#endif
#ifdef CRIA_CUDA
#define CRIA_DEVICES "cpu, cuda"
#else
#define CRIA_DEVICES "cpu"
#endif

const char cria_version[] = CRIA_COMMIT " (" CRIA_DEVICES ")";
