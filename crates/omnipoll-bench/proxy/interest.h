/* What a proxy waits for on a descriptor: IN, OUT, both or 0. */
#ifndef INTEREST_H
#define INTEREST_H

enum { IN = 1, OUT = 2 };

#endif
