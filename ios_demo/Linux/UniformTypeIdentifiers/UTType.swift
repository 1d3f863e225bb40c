/// A kind of file, as far as the app uses it.
public struct UTType: Sendable, Equatable {
  let identifier: String
  public static let folder = UTType(identifier: "public.folder")
}
