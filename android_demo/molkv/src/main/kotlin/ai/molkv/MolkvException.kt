package ai.molkv

/**
 * Base of every exception that molkv throws on purpose.
 *
 * @property problem what is wrong, naming the file, the field and the value
 * @property fix what the reader can do about it
 */
public sealed class MolkvException(
    public val problem: String,
    public val fix: String,
    cause: Throwable? = null,
) : Exception(if (fix.isEmpty()) problem else "$problem ($fix)", cause)

/** A bundle is incomplete, damaged, of another version, or its parts do not belong together. */
public class BundleException(
    problem: String,
    fix: String,
    cause: Throwable? = null,
) : MolkvException(problem, fix, cause)

/** An expert blob breaks a rule of its format. */
public class BlobFormatException(
    problem: String,
    fix: String = "",
) : MolkvException(problem, fix)

/** A row's bytes do not match their checksum, or could not be read whole. */
public class RowCorruptException(
    problem: String,
    fix: String = "",
) : MolkvException(problem, fix)

/** The tokenizer is missing, unreadable or not the one that the model was trained with. */
public class TokenizerException(
    problem: String,
    fix: String = "",
) : MolkvException(problem, fix)

/** A token id lies outside the vocabulary. */
public class TokenIdException(
    problem: String,
    fix: String = "",
) : MolkvException(problem, fix)

/** More tokens than the model's context has room for, or none at all. */
public class ContextLengthException(
    problem: String,
    fix: String,
) : MolkvException(problem, fix)

/** There is less memory, or less storage, than the work needs. */
public class InsufficientSpaceException(
    problem: String,
    fix: String,
    cause: Throwable? = null,
) : MolkvException(problem, fix, cause)

/** An argument or a state in which a call cannot work. */
public class UsageException(
    problem: String,
    fix: String = "",
) : MolkvException(problem, fix)

/** The native libraries are missing, or of another version than this code. */
public class NativeLibraryException(
    problem: String,
    fix: String,
    cause: Throwable? = null,
) : MolkvException(problem, fix, cause)
