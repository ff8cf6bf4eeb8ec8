/* Runs functions of a library on memory that the parent process provides, and returns the memory.

   Usage: proof LIBRARY FUNCTION... Standard input has two numbers, of bytes and of relocations; the
   memory; and the relocations, the places in it that hold an address, counted from its start. The
   memory begins with six arguments for each function; the first is replaced by its result. */

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

enum { ALIGNMENT = 64, ARGUMENTS = 6 };

typedef int function(intptr_t, intptr_t, intptr_t, intptr_t, intptr_t, intptr_t);

int main(int count, char **names)
{
    const struct rlimit none = { 0, 0 };
    setrlimit(RLIMIT_CORE, &none); /* a crash is an answer, and leaves no file */
    intptr_t size[2];
    if (count < 2 || fread(size, sizeof size, 1, stdin) != 1) return 2;
    char *memory = aligned_alloc(ALIGNMENT, size[0]);
    intptr_t *places = malloc((size[1] + 1) * sizeof *places);
    if (!memory || !places || fread(memory, 1, size[0], stdin) != (size_t)size[0] ||
        fread(places, sizeof *places, size[1], stdin) != (size_t)size[1])
        return 2;
    void *library = dlopen(names[1], RTLD_NOW);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return 3;
    }
    for (intptr_t i = 0; i < size[1]; i++)
        *(intptr_t *)(memory + places[i]) += (intptr_t)memory;
    for (int i = 2; i < count; i++) {
        function *f = (function *)dlsym(library, names[i]);
        if (!f) {
            fprintf(stderr, "%s is missing\n", names[i]);
            return 3;
        }
        intptr_t *a = (intptr_t *)memory + ARGUMENTS * (i - 2);
        a[0] = f(a[0], a[1], a[2], a[3], a[4], a[5]);
    }
    return fwrite(memory, 1, size[0], stdout) != (size_t)size[0] || fflush(stdout);
}
