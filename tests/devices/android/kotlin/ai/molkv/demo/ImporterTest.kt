package ai.molkv.demo

import ai.molkv.BundleException
import ai.molkv.InsufficientSpaceException
import ai.molkv.MolkvBundle
import ai.molkv.TestFiles
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.runBlocking
import org.junit.Test
import java.io.File
import java.io.IOException
import java.io.InputStream
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class ImporterTest {
    private val target = File.createTempFile("imported", "").apply { delete() }

    /** A folder that counts what is read, and fails where it is told to. */
    private class Source(
        private val folder: File,
        private val failAfter: Long = Long.MAX_VALUE,
    ) : DocumentSource {
        var bytesRead = 0L

        override val name = "picked"

        override fun files() = checkNotNull(folder.listFiles()).associate { it.name to it.length() }

        override fun open(file: String): InputStream =
            object : InputStream() {
                private val stream = folder.resolve(file).inputStream()

                override fun read() = error("not by single bytes")

                override fun skip(count: Long) = stream.skip(count)

                override fun read(
                    buffer: ByteArray,
                    offset: Int,
                    length: Int,
                ): Int {
                    if (bytesRead >= failAfter) throw IOException("pulled out")
                    val read = stream.read(buffer, offset, minOf(length, 10_000))
                    if (read > 0) bytesRead += read
                    return read
                }

                override fun close() = stream.close()
            }
    }

    private fun copy(
        source: DocumentSource,
        importer: BundleImporter = BundleImporter(target),
        progress: (Int) -> Unit = {},
    ) = runBlocking { MolkvBundle.open(importer.copy(source, progress)).verifyExperts() }

    @Test
    fun aBundleIsCopiedWithProgressAndOpens() {
        val seen = ArrayList<Int>()
        copy(Source(TestFiles.bundle("small")), progress = seen::add)
        assertEquals(seen.sorted(), seen)
        assertEquals(1000, seen.last())
        assertEquals(listOf("picked"), BundleImporter(target).bundles().map { it.name })
    }

    @Test
    fun anInterruptedCopyGoesOnWhereItEnded() {
        val bundle = TestFiles.bundle("tiny")
        val total = checkNotNull(bundle.listFiles()).sumOf { it.length() }
        val first = Source(bundle, failAfter = total / 2)
        val error = assertFailsWith<BundleException> { copy(first) }
        assertTrue("pulled out" in error.problem)
        assertEquals(emptyList(), BundleImporter(target).bundles(), "it is no bundle yet")
        val second = Source(bundle)
        copy(second)
        assertTrue(second.bytesRead < total * 3 / 4, "${second.bytesRead} of $total")
    }

    @Test
    fun stoppingIsAnInterruption() {
        assertFailsWith<CancellationException> {
            copy(Source(TestFiles.bundle("tiny"))) { permille ->
                if (permille > 300) throw CancellationException("stopped")
            }
        }
        copy(Source(TestFiles.bundle("tiny")))
    }

    @Test
    fun anotherBundleOfTheSameNameReplacesIt() {
        copy(Source(TestFiles.bundle("small")))
        copy(Source(TestFiles.bundle("plain")))
        val manifest = runBlocking { MolkvBundle.open(target.resolve("picked")) }.manifest
        assertEquals(null, manifest.tokenizer)
    }

    @Test
    fun aDamagedSourceIsFoundByItsChecksums() {
        val folder = TestFiles.copyOf("small")
        val file = folder.resolve("dense.onnx.data")
        file.writeBytes(file.readBytes().also { it[it.size / 2] = (it[it.size / 2] + 1).toByte() })
        val error = assertFailsWith<BundleException> { copy(Source(folder)) }
        assertTrue("dense.onnx.data: sha256" in error.problem)
    }

    @Test
    fun whatIsNoBundleOrTooLargeIsRefusedBeforeItIsCopied() {
        val empty = File.createTempFile("empty", "").apply { delete() }.apply { mkdirs() }
        assertFailsWith<BundleException> { copy(Source(empty)) }
        val full = BundleImporter(target) { 1000 }
        val source = Source(TestFiles.bundle("small"))
        assertFailsWith<InsufficientSpaceException> { copy(source, full) }
        assertEquals(0, source.bytesRead)
    }
}
