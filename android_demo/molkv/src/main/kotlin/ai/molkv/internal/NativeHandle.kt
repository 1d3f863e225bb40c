package ai.molkv.internal

import java.util.concurrent.atomic.AtomicLong

/** Owns a native object, which is freed once however often it is closed. */
internal abstract class NativeHandle(
    address: Long,
) : AutoCloseable {
    private val held = AtomicLong(address)

    /** The object's address; a closed one never reaches native code. */
    val address: Long
        get() = held.get().also { check(it != 0L) { "${javaClass.simpleName} is closed" } }

    protected abstract fun release(address: Long)

    final override fun close() {
        val address = held.getAndSet(0)
        if (address != 0L) release(address)
    }
}
