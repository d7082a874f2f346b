/* inject.c - see inject.h. */
#define _GNU_SOURCE
#include "inject.h"

#include "../fakes/nccl.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>

holdings held;

static int counted, paused, wanted = -1;
static const char *failed;
static int failed_kind;

void inject_arm(int target)
{
    counted = 0;
    wanted = target;
    failed = NULL;
}

void inject_disarm(void) { wanted = -1; }
void inject_pause(int yes) { paused = yes; }
const char *injected_at(void) { return failed; }
int injected_kind(void) { return failed_kind; }

int inject(const char *request, int kind)
{
    if (wanted < 0 || paused || counted++ != wanted) return 0;
    failed = request;
    failed_kind = kind;
    return 1;
}

int nothing_held(void)
{
    return !held.memory && !held.threads && !held.locks && !held.libraries && !held.driver &&
           !nccl_holds();
}

/* ---- memory ------------------------------------------------------------------------------- */

void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *data, size_t size);

static void *counted_memory(void *data)
{
    held.memory += data != NULL;
    return data;
}

void *__wrap_malloc(size_t size)
{
    return inject("malloc", FAULT_IS_ERROR) ? NULL : counted_memory(__real_malloc(size));
}

void *__wrap_calloc(size_t count, size_t size)
{
    return inject("calloc", FAULT_IS_ERROR) ? NULL : counted_memory(__real_calloc(count, size));
}

void *__wrap_realloc(void *data, size_t size)
{
    void *moved;
    if (inject("realloc", FAULT_IS_ERROR)) return NULL;
    moved = __real_realloc(data, size);
    held.memory += moved && !data;
    return moved;
}

static void (*after_free)(void);

void inject_after_free(void (*then)(void)) { after_free = then; }

void __wrap_free(void *data)
{
    void (*then)(void) = after_free;
    held.memory -= data != NULL;
    __real_free(data);
    after_free = NULL;
    if (then) then();
}

/* ---- threads ------------------------------------------------------------------------------ */

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *arg);
int __real_pthread_join(pthread_t thread, void **result);
int __real_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes);
int __real_pthread_mutex_destroy(pthread_mutex_t *mutex);
int __real_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attributes);
int __real_pthread_cond_destroy(pthread_cond_t *cond);
int __real_pthread_sigmask(int how, const sigset_t *set, sigset_t *before);
int __real_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
int __real_sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *arg)
{
    int result;
    if (inject("pthread_create", FAULT_IS_ERROR)) return EAGAIN;
    result = __real_pthread_create(thread, attributes, start, arg);
    held.threads += result == 0;
    return result;
}

int __wrap_pthread_join(pthread_t thread, void **result)
{
    held.threads--;
    return __real_pthread_join(thread, result);
}

int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes)
{
    if (inject("pthread_mutex_init", FAULT_IS_ERROR)) return ENOMEM;
    held.locks++;
    return __real_pthread_mutex_init(mutex, attributes);
}

int __wrap_pthread_mutex_destroy(pthread_mutex_t *mutex)
{
    held.locks--;
    return __real_pthread_mutex_destroy(mutex);
}

int __wrap_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attributes)
{
    if (inject("pthread_cond_init", FAULT_IS_ERROR)) return EAGAIN;
    held.locks++;
    return __real_pthread_cond_init(cond, attributes);
}

int __wrap_pthread_cond_destroy(pthread_cond_t *cond)
{
    held.locks--;
    return __real_pthread_cond_destroy(cond);
}

/* Blocking signals can fail; restoring them cannot. */
int __wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *before)
{
    if (before && inject("pthread_sigmask", FAULT_IS_ERROR)) return EINVAL;
    return __real_pthread_sigmask(how, set, before);
}

/* In each sb_open until it is granted; then it lasts for good. */
int __wrap_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    if (inject("pthread_atfork", FAULT_IS_ERROR)) return ENOMEM;
    return __real_pthread_atfork(prepare, parent, child);
}

int __wrap_sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set)
{
    if (inject("sched_getaffinity", FAULT_IS_NONE)) return -1;
    return __real_sched_getaffinity(pid, size, set);
}

/* ---- libraries ---------------------------------------------------------------------------- */

void *untyped(const void *pointer)
{
    void *address;
    memcpy(&address, pointer, sizeof address);
    return address;
}

void *__wrap_dlopen(const char *name, int flags)
{
    (void)flags;
    void *library = strcmp(name, "libcuda.so.1") == 0   ? driver_library()
                    : strcmp(name, "libnccl.so.2") == 0 ? nccl_library()
                                                        : NULL;
    if (!library || inject("dlopen", FAULT_IS_ERROR)) return NULL;
    held.libraries++;
    return library;
}

char *__wrap_dlerror(void)
{
    static char text[] = "injected: cannot open";
    return text;
}

void *__wrap_dlsym(void *library, const char *name)
{
    if (inject(name, FAULT_IS_ERROR)) return NULL;
    return library == driver_library() ? driver_symbol(name)
           : library == nccl_library() ? nccl_symbol(name)
                                       : NULL;
}

int __wrap_dlclose(void *library)
{
    held.libraries -= library == driver_library() || library == nccl_library();
    return 0;
}
