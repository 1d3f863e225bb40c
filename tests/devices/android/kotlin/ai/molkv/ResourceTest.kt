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
            // A leak grows in every batch, compiled code, which an emulator holds twice, in some.
            // Any session that stays costs more than a tenth of this: graph, cache and window.
            val bound = rounds / BATCHES * LEAST_SESSION_BYTES / 10
            assertTrue(growth.min() < bound, "batches grew by $growth bytes")
        }

    /** By how many bytes the process grew. */
    private suspend fun batch(rounds: Int): Long {
        val before = residentBytes()
        repeat(rounds) { round() }
        settle()
        return residentBytes() - before
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

    private fun residentBytes(): Long {
        val line = File("/proc/self/status").readLines().first { it.startsWith("VmRSS") }
        return line.filter { it.isDigit() }.toLong() * 1024
    }

    private companion object {
        val rounds: Int = Integer.getInteger("molkv.test.rounds")
        const val WARM_UP = 10
        const val BATCHES = 4
        const val LEAST_SESSION_BYTES = 1L shl 20
    }
}
