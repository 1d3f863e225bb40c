package ai.molkv.internal

/** Closes what it owns, the newest first. */
internal class Resources : AutoCloseable {
    private val owned = ArrayDeque<AutoCloseable>()

    fun <Resource : AutoCloseable> own(resource: Resource): Resource {
        owned.addLast(resource)
        return resource
    }

    override fun close() {
        while (owned.isNotEmpty()) owned.removeLast().close()
    }
}
