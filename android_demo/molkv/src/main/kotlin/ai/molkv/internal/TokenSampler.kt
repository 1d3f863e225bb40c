package ai.molkv.internal

import ai.molkv.Sampling
import java.nio.ByteBuffer

/** Chooses tokens, with a random generator of its own. */
internal class TokenSampler(
    sampling: Sampling,
) : NativeHandle(
        typed {
            with(sampling) {
                Native.samplerCreate(temperature, topK, topP, minP, seed.toLong())
            }
        },
    ) {
    /** Chooses from float32 [vocabularySize]. */
    fun choose(
        logits: ByteBuffer,
        vocabularySize: Int,
    ): Long = typed { Native.samplerSample(address, logits, vocabularySize) }

    override fun release(address: Long): Unit = Native.samplerFree(address)
}
