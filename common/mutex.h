// Mutex and its companions: the only locks of this repository
// (docs/decisions/0002-mutex.md).
//
// They are Abseil's, whose clang annotations and conditional waits they keep. In a build
// for the thread sanitizer they are those of common/instrumented_mutex.h, because the
// packaged Abseil library is not instrumented and the sanitizer would see no lock at all.
// This is the one place that asks which of the two builds it is in.
#ifndef TESSERA_COMMON_MUTEX_H_
#define TESSERA_COMMON_MUTEX_H_

#include "absl/base/config.h"
#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#ifdef ABSL_HAVE_THREAD_SANITIZER
#include "common/instrumented_mutex.h"
#else
#include "absl/synchronization/notification.h"
#endif

namespace tessera {

// What a thread waits for: evaluated under the lock, by any thread, any number of times.
using Condition = absl::Condition;

#ifdef ABSL_HAVE_THREAD_SANITIZER
using Mutex = InstrumentedMutex;
using MutexLock = InstrumentedMutexLock;
using ReaderMutexLock = InstrumentedReaderMutexLock;
using Notification = InstrumentedNotification;
#else
// Everything here is safe to call from any thread. A mutex is not recursive.
using Mutex = absl::Mutex;
// Hold a lock for a scope: alone, or beside other readers.
using MutexLock = absl::MutexLock;
using ReaderMutexLock = absl::ReaderMutexLock;
// Something that happens once; what came before Notify() happens-before a wait's return.
using Notification = absl::Notification;
#endif

}  // namespace tessera

#endif  // TESSERA_COMMON_MUTEX_H_
