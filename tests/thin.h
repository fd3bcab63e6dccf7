/* Loops over many cases of one kind. Under sanitizers, which make them ten times as long, every
 * n-th of them: those look for wrong accesses, not for a value that one length alone gets wrong. */
#ifndef TESTS_THIN_H
#define TESTS_THIN_H

#if defined(VARVE_SANITIZED)
#define THIN(n) (n)
#else
#define THIN(n) 1
#endif

#endif
