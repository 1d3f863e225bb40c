package ai.molkv.internal

import ai.molkv.InsufficientSpaceException
import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * Zeroed memory outside the Java heap. Unlike `ByteBuffer.allocateDirect` it is freed when it is
 * closed, not when the garbage collector comes by, and takes no page before it is written.
 */
internal class NativeMemory(
    bytes: Long,
) : AutoCloseable {
    private var owned: ByteBuffer? =
        if (bytes > Int.MAX_VALUE) {
            throw InsufficientSpaceException(
                "a buffer needs $bytes bytes, and Java holds at most ${Int.MAX_VALUE}",
                "export with a smaller context, or with an int8 cache",
            )
        } else {
            typed { Native.allocate(bytes) }.order(ByteOrder.nativeOrder())
        }

    /** The memory; not to be used after [close]. */
    val buffer: ByteBuffer get() = checkNotNull(owned) { "the memory is freed" }

    override fun close() {
        owned?.let(Native::free)
        owned = null
    }
}
