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
            repeat(WARM_UP) { round() }
            settle()
            val descriptors = descriptors()
            val memory = residentBytes()
            repeat(rounds) { round() }
            settle()
            assertEquals(descriptors, descriptors())
            // Any session that stays costs more than a tenth of this: graph, cache and window.
            val grown = residentBytes() - memory
            assertTrue(grown < rounds * LEAST_SESSION_BYTES / 10, "grew by $grown bytes")
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
        const val WARM_UP = 20
        const val LEAST_SESSION_BYTES = 1L shl 20
    }
}
