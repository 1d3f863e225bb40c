package ai.molkv

import com.google.gson.stream.JsonReader
import com.google.gson.stream.JsonToken
import com.google.gson.stream.MalformedJsonException
import java.io.EOFException
import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException

/**
 * Reads JSON strictly, as it comes: a field that is unknown, missing, repeated or of another type is
 * an error that names it, and depth costs nothing.
 *
 * @param place the file, for messages
 */
internal class JsonRecord private constructor(
    private val place: String,
    private val reader: JsonReader,
) {
    /** Reads an object: [field] reads the value of the field it is given, or refuses the name. */
    fun fields(
        required: Set<String>,
        field: (name: String) -> Unit,
    ) {
        expect(JsonToken.BEGIN_OBJECT, "an object")
        val where = reader.path
        val seen = HashSet<String>()
        reader.beginObject()
        while (reader.hasNext()) {
            val name = reader.nextName()
            if (!seen.add(name)) refuse("field `$name` comes twice")
            field(name)
        }
        reader.endObject()
        val missing = (required - seen).firstOrNull() ?: return
        refuse("missing required field `${fieldPath(where, missing)}`")
    }

    /** Reads an object whose names are data. */
    fun <Value> map(value: () -> Value): Map<String, Value> {
        val entries = LinkedHashMap<String, Value>()
        fields(emptySet()) { entries[it] = value() }
        return entries
    }

    fun <Item> list(item: () -> Item): List<Item> {
        expect(JsonToken.BEGIN_ARRAY, "a list")
        val items = ArrayList<Item>()
        reader.beginArray()
        while (reader.hasNext()) items.add(item())
        reader.endArray()
        return items
    }

    fun text(): String {
        expect(JsonToken.STRING, "text")
        return reader.nextString()
    }

    fun boolean(): Boolean {
        expect(JsonToken.BOOLEAN, "true or false")
        return reader.nextBoolean()
    }

    fun number(): Double {
        expect(JsonToken.NUMBER, "a number")
        return reader.nextDouble()
    }

    fun integer(): Long {
        val path = reader.path
        val digits = digits()
        return digits.toLongOrNull() ?: refuse("${shown(path)} is $digits, expected an integer")
    }

    fun unsigned(): ULong {
        val path = reader.path
        val digits = digits()
        return digits.toULongOrNull()
            ?: refuse("${shown(path)} is $digits, expected an integer from 0 to 2^64 - 1")
    }

    fun integers(): LongArray = list(::integer).toLongArray()

    fun <Value> nullable(value: () -> Value): Value? {
        if (reader.peek() != JsonToken.NULL) return value()
        reader.nextNull()
        return null
    }

    /** Passes over a value, whatever it is. */
    fun skip(): Unit = reader.skipValue()

    fun unknown(name: String): Nothing =
        refuse("unknown field `$name`", "update molkv, or export with this version")

    fun refuse(
        problem: String,
        fix: String = "copy the bundle again, or export it with this version",
    ): Nothing = throw BundleException("$place: $problem", fix)

    private fun digits(): String {
        expect(JsonToken.NUMBER, "an integer")
        return reader.nextString()
    }

    private fun expect(
        token: JsonToken,
        what: String,
    ) {
        val found = reader.peek()
        if (found == token) return
        refuse("${shown(reader.path)} is ${WORDS[found] ?: found.name}, expected $what")
    }

    private fun shown(path: String): String = "`${path.removePrefix("$").removePrefix(".")}`"

    private fun fieldPath(
        where: String,
        name: String,
    ): String = "$where.$name".removePrefix("$").removePrefix(".")

    companion object {
        private val WORDS =
            mapOf(
                JsonToken.BEGIN_OBJECT to "an object",
                JsonToken.BEGIN_ARRAY to "a list",
                JsonToken.STRING to "text",
                JsonToken.NUMBER to "a number",
                JsonToken.BOOLEAN to "true or false",
                JsonToken.NULL to "null",
            )

        /**
         * Reads a whole document.
         *
         * @throws BundleException it is no JSON, or not what [read] expects
         */
        fun <Result> read(
            place: String,
            content: ByteArray,
            read: (JsonRecord) -> Result,
        ): Result {
            val text =
                try {
                    Charsets.UTF_8
                        .newDecoder()
                        .decode(ByteBuffer.wrap(content))
                        .toString()
                } catch (_: CharacterCodingException) {
                    throw BundleException("$place: is no UTF-8", "copy the bundle again")
                }
            val reader = JsonReader(text.reader())
            val record = JsonRecord(place, reader)
            try {
                val result = read(record)
                if (reader.peek() !=
                    JsonToken.END_DOCUMENT
                ) {
                    record.refuse("has more than one value")
                }
                return result
            } catch (_: EOFException) {
                record.refuse("is cut off: the JSON ends too early")
            } catch (error: MalformedJsonException) {
                record.refuse("is no JSON: ${error.message?.lineSequence()?.first()}")
            } catch (error: IllegalStateException) {
                record.refuse("is not what it should be: ${error.message}")
            } catch (error: NumberFormatException) {
                record.refuse("holds a number that cannot be: ${error.message}")
            }
        }
    }
}
