// swift-tools-version: 6.0
import PackageDescription

// `native` is a link to the repository's native/, so the C++ core is compiled from its own sources.
let core: [Target] = [
  .target(
    name: "CMolkv",
    path: "native",
    exclude: [
      "CMakeLists.txt", "cmake", "executorch", "fuzz", "onnxruntime", "runner", "tests", "tools",
    ],
    sources: ["src"],
    publicHeadersPath: "include",
    cxxSettings: [.headerSearchPath("src")]
  )
]

#if os(Linux)
  // What Apple's systems bring, as far as this package uses it, so that all of it is compiled and
  // tested on Linux too: CryptoKit on OpenSSL; SwiftUI as declarations; Core ML as declarations and
  // arrays, whose models run where a test says. And a graph engine that Linux has.
  let kitDependencies: [Target.Dependency] = ["CMolkv", "CoreML", "CryptoKit"]
  let appDependencies: [Target.Dependency] = ["MolkvKit", "SwiftUI", "UniformTypeIdentifiers"]
  let linuxOnly: [Target] = [
    .systemLibrary(name: "CMalloc", path: "Linux/CMalloc"),
    .systemLibrary(name: "COpenSSL", path: "Linux/COpenSSL"),
    .target(name: "CryptoKit", dependencies: ["COpenSSL"], path: "Linux/CryptoKit"),
    .target(name: "CoreML", path: "Linux/CoreML"),
    .target(
      name: "SwiftUI", dependencies: ["UniformTypeIdentifiers"], path: "Linux/SwiftUI"),
    .target(name: "UniformTypeIdentifiers", path: "Linux/UniformTypeIdentifiers"),
    .target(
      name: "CMolkvOnnx",
      dependencies: ["CMolkv"],
      path: "native/runner",
      sources: [
        "c_api", "expert_planes.cc", "file_content.cc", "graph_facts.cc", "manifest.cc",
        "onnx_graph.cc", "onnx_graph_file.cc", "onnx_runtime.cc", "record.cc",
      ],
      publicHeadersPath: "c_api",
      cxxSettings: [.headerSearchPath("../onnxruntime")]
    ),
    .target(
      name: "MolkvOnnx", dependencies: ["CMolkvOnnx", "MolkvKit"], path: "Linux/MolkvOnnx"),
    .executableTarget(
      name: "MolkvDemoApp", dependencies: ["MolkvDemo", "SwiftUI"], path: "App",
      exclude: ["Info.plist", "MolkvDemoApp.entitlements", "PrivacyInfo.xcprivacy", "project.yml"],
      sources: ["MolkvDemoApp.swift"]),
    .target(
      name: "MolkvTesting", dependencies: ["MolkvKit", "MolkvOnnx", "CoreML"],
      path: "Linux/MolkvTesting"),
    .testTarget(name: "MolkvKitTests", dependencies: ["CMalloc", "MolkvKit", "MolkvTesting"]),
    .testTarget(name: "MolkvDemoTests", dependencies: ["MolkvDemo", "MolkvKit", "MolkvTesting"]),
  ]
#else
  let kitDependencies: [Target.Dependency] = ["CMolkv"]
  let appDependencies: [Target.Dependency] = ["MolkvKit"]
  let linuxOnly: [Target] = []
#endif

let shared: [Target] = [
  .target(name: "MolkvKit", dependencies: kitDependencies),
  .target(name: "MolkvDemo", dependencies: appDependencies),
]

let package = Package(
  name: "Molkv",
  platforms: [.iOS(.v18), .macOS(.v15)],
  products: [
    .library(name: "MolkvKit", targets: ["MolkvKit"]),
    .library(name: "MolkvDemo", targets: ["MolkvDemo"]),
  ],
  targets: [core, linuxOnly, shared].flatMap { $0 },
  cxxLanguageStandard: .cxx17
)
