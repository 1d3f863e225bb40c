package ai.molkv

import kotlinx.coroutines.flow.collect
import kotlinx.coroutines.flow.take
import org.junit.Test
import java.io.File
import kotlin.test.assertEquals
import kotlin.test.assertTrue

class ResourceTest {
    @Test
    fun roundsOfOpenGenerateCloseLeakNoMemoryAndNoDescriptor() =
        suspending {
            batch(WARM_UP)
            val descriptors = descriptors()
            val growth = List(BATCHES) { batch(rounds / BATCHES) }
            assertEquals(descriptors, descriptors())
            // A leak grows in every batch, compiled code in some.
            // Any session that stays costs more than a tenth of this: graph, cache and window.
            val bound = rounds / BATCHES * LEAST_SESSION_BYTES / 10
            assertTrue(growth.min() < bound, "batches grew by $growth bytes")
        }

    /** By how many bytes the memory of the process grew. */
    private suspend fun batch(rounds: Int): Long {
        val before = writableBytes()
        repeat(rounds) { round() }
        settle()
        return writableBytes() - before
    }

    private suspend fun round() {
        withSession(TestFiles.bundle("small")) { session ->
            session.generate("The whale", GenerationOptions(8)).take(4).collect()
        }
    }

    private fun settle() {
        repeat(3) {
            System.gc()
            Thread.sleep(50)
        }
    }

    private fun descriptors(): Int = checkNotNull(File("/proc/self/fd").list()).size

    /** Not what is resident, of which an emulator's own memory would be a part. */
    private fun writableBytes(): Long =
        File("/proc/self/maps")
            .readLines()
            .map { it.split(' ') }
            .filter { (_, permissions) -> 'w' in permissions }
            .sumOf { (addresses) ->
                val (first, last) = addresses.split('-').map { it.toLong(16) }
                last - first
            }

    private companion object {
        val rounds: Int = Integer.getInteger("molkv.test.rounds")
        const val WARM_UP = 10
        const val BATCHES = 4
        const val LEAST_SESSION_BYTES = 1L shl 20
    }
}
