/* version.h: which cria this is: git commit at build time and the way it was built. */
#ifndef CRIA_BASE_VERSION_H
#define CRIA_BASE_VERSION_H

extern const char cria_version[]; /* e.g. "1a2b3c4 (cpu)" */

#endif
