package ai.molkv

import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.collect
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.onEach
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeout
import org.junit.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class CancellationTest {
    private val endless = GenerationOptions(Int.MAX_VALUE, stopIds = emptySet())
    private val bundle = runBlocking { MolkvBundle.open(TestFiles.bundle("tiny")) }

    @Test
    fun cancelledWhileItOpens() =
        suspending {
            repeat(20) { round ->
                val opening =
                    launch(Dispatchers.Default) { MolkvBundle.open(TestFiles.bundle("tiny")) }
                delay(round.toLong())
                opening.cancelAndJoin()
            }
        }

    @Test
    fun cancelledWhileASessionIsMade() =
        suspending {
            repeat(10) { round ->
                val opening = async(Dispatchers.Default) { bundle.openSession().close() }
                delay(2L * round)
                opening.cancelAndJoin()
            }
        }

    @Test
    fun cancelledDuringPrefill() =
        suspending {
            bundle.openSession(SessionOptions(threads = 1)).use { session ->
                val ids = LongArray(session.model.context.toInt()) { it % 4000L }
                repeat(5) { round ->
                    val generating =
                        launch(Dispatchers.Default) { session.generate(ids, endless).collect() }
                    delay(5L * round)
                    withTimeout(60_000) { generating.cancelAndJoin() }
                }
                assertWorks(session)
            }
        }

    @Test
    fun cancelledBetweenTokens() =
        suspending {
            bundle.openSession(SessionOptions(threads = 1)).use { session ->
                assertEquals(
                    3,
                    session
                        .generate("A", endless)
                        .take(3)
                        .toList()
                        .size,
                )
                assertFailsWith<IllegalArgumentException> {
                    session.generate("A", endless).onEach { require(false) }.collect()
                }
                assertWorks(session)
            }
        }

    @Test
    fun stoppedByTheSession() =
        suspending {
            bundle.openSession(SessionOptions(threads = 1)).use { session ->
                var count = 0
                // The flow ends, as if the text were complete.
                session
                    .generate("A", endless)
                    .onEach {
                        if (++count ==
                            4
                        ) {
                            session.cancel()
                        }
                    }.collect()
                assertTrue(count in 4 until session.model.context)
                session.cancel() // nothing runs: nothing happens
                assertWorks(session)
            }
        }

    @Test
    fun closedWhileItGenerates() =
        suspending {
            for (wait in listOf(0L, 3L, 30L)) {
                val session = bundle.openSession(SessionOptions(threads = 1))
                val generating =
                    async(Dispatchers.Default) {
                        runCatching { session.generate("A", endless).collect() }
                    }
                delay(wait)
                session.close()
                session.close()
                val outcome = withTimeout(60_000) { generating.await() }
                // It may have reached the context's end before.
                outcome.exceptionOrNull()?.let { assertTrue(it is UsageException, "$it") }
                assertFailsWith<UsageException> { session.generate("A").first() }
                assertFailsWith<UsageException> { session.encode("A") }
                assertFailsWith<UsageException> { session.reset() }
            }
        }

    @Test
    fun closedByItsCollector() =
        suspending {
            val session = bundle.openSession(SessionOptions(threads = 1))
            assertFailsWith<UsageException> {
                session.generate("A", endless).collect {
                    session.close()
                    delay(10)
                }
            }
        }

    @Test
    fun aSecondGenerationIsRefused() =
        suspending {
            bundle.openSession(SessionOptions(threads = 1)).use { session ->
                session.generate("A", endless).take(2).collect {
                    assertFailsWith<UsageException> { session.generate("B").first() }
                    assertFailsWith<UsageException> { session.reset() }
                }
                assertWorks(session)
            }
        }

    private suspend fun assertWorks(session: MolkvSession) {
        val options = GenerationOptions(6, stopIds = emptySet())
        val tokens = session.generate("The whale", options).toList()
        val other = bundle.openSession().use { it.generate("The whale", options).toList() }
        assertEquals(other, tokens)
    }
}
